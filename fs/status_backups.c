/* status/backups: complete backups, in the columns of WAL-E's backup-list --detail. */
#include <inttypes.h>

#include "fs/status_file.h"

/* base_<segment>_<offset> */
static void print_start(FILE *out, const char *name)
{
    const char *segment = name + sizeof("base_") - 1;
    fprintf(out, "%.24s\t%s", segment, segment + 25);
}

void status_print_backups(FILE *out, const struct status_view *v)
{
    const struct catalog *c = view_backups(v);
    if (c == NULL)
        return;
    fputs("name\tlast_modified\texpanded_size_bytes\twal_segment_backup_start\t"
          "wal_segment_offset_backup_start\twal_segment_backup_stop\t"
          "wal_segment_offset_backup_stop\n",
          out);
    for (size_t i = 0; i < c->count; i++) {
        const struct backup_info *b = &c->backups[i].info;
        fprintf(out, "%s\t", b->name);
        status_time(out, b->stored_s);
        fprintf(out, "\t%" PRIu64 "\t", b->expanded_size);
        print_start(out, b->name);
        fprintf(out, "\t%s\t%s\n", b->stop_segment, b->stop_offset);
    }
}
