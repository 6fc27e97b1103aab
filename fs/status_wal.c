/* status/wal: the archived segments of each timeline, and what is missing between them. */
#include <inttypes.h>

#include "fs/status_file.h"

static void print_gaps(FILE *out, const struct wal_census *c, const struct wal_timeline *t)
{
    char first[WAL_NAME_MAX], last[WAL_NAME_MAX];
    if (t->gap_count > t->gaps_kept)
        fprintf(out, "(%zu older gaps) ", t->gap_count - t->gaps_kept);
    for (size_t i = 0; i < t->gaps_kept; i++) {
        wal_census_name(c, t->tli, t->gaps[i].first, first);
        wal_census_name(c, t->tli, t->gaps[i].last, last);
        fprintf(out, "%s%s", i == 0 ? "" : " ", first);
        if (t->gaps[i].first != t->gaps[i].last)
            fprintf(out, "-%s", last);
    }
    if (t->gap_count == 0)
        fputc('-', out);
}

void status_print_wal(FILE *out, const struct status_view *v)
{
    const struct wal_census *c = view_wal(v);
    char first[WAL_NAME_MAX], last[WAL_NAME_MAX];
    if (c == NULL)
        return;
    if (c->segment_size == 0 && c->segments > 0)
        fputs("# the segment size is not known (no segment can be read): gaps cannot be told\n",
              out);
    if (c->older > 0)
        fprintf(out, "# %zu older timelines are not shown\n", c->older);
    if (c->strange > 0)
        fprintf(out, "# %" PRIu64 " names do not fit the segment size\n", c->strange);
    fputs("timeline\tfirst\tlast\tsegments\tmissing\tbytes\tlast_archived\tgaps\n", out);
    for (size_t i = 0; i < c->count; i++) {
        const struct wal_timeline *t = &c->timelines[i];
        wal_census_name(c, t->tli, t->range.first, first);
        wal_census_name(c, t->tli, t->range.last, last);
        fprintf(out, "%" PRIu32 "\t%s\t%s\t%" PRIu64 "\t", t->tli, first, last, t->count);
        if (c->segment_size == 0)
            fputc('?', out);
        else
            fprintf(out, "%" PRIu64, t->missing);
        fprintf(out, "\t%" PRIu64 "\t", t->stored_bytes);
        status_time(out, t->last_s);
        fputc('\t', out);
        if (c->segment_size == 0)
            fputc('?', out);
        else
            print_gaps(out, c, t);
        fputc('\n', out);
    }
}
