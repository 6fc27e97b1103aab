#include "core/backup_wal.h"

#include <stdio.h>
#include <string.h>

/* Where the name is all that is known, it was read as if segments had the usual size. */
static struct backup_position start_of(const struct backup_info *info, uint32_t segment_size)
{
    struct backup_position start = info->start;
    if (!info->start_sure && info->segment_size == 0)
        (void)backup_name_parse(info->name, segment_size, &start);
    return start;
}

static struct backup_position stop_of(const struct backup_info *info, uint32_t segment_size)
{
    struct backup_position stop = info->stop;
    char name[BACKUP_NAME_MAX];
    if (!info->by_walefs && info->segment_size == 0 && strlen(info->stop_segment) == 24 &&
        strlen(info->stop_offset) >= 8 &&
        snprintf(name, sizeof(name), "base_%.24s_%.8s", info->stop_segment, info->stop_offset) > 0)
        (void)backup_name_parse(name, segment_size, &stop);
    return stop;
}

const char *backup_wal_doubt(const struct backup_info *info)
{
    return info->start_sure ? ""
                            : " (if it begins where its name says, which WAL-E got wrong for "
                              "offline backups)";
}

bool backup_wal_way(const struct wal_census *c, const struct backup_info *info, struct wal_way *way,
                    bool *known, struct err *err)
{
    *way = (struct wal_way){.to_tli = 0};
    *known = false;
    if (c->segment_size == 0)
        return true;
    struct backup_position start = start_of(info, c->segment_size);
    struct backup_position stop = stop_of(info, c->segment_size);
    *known = start.tli != 0;
    return !*known ||
           wal_census_way(c, start.tli, start.lsn, stop.tli == 0 ? 0 : stop.lsn, way, err);
}
