/* status/wal: the archived segments of each timeline, and what is missing between them. */
#include <inttypes.h>

#include "fs/status_file.h"

#define SHOWN_TIMELINES 64u /* the newest */
#define SHOWN_GAPS 32u      /* of each, the newest */

static void print_gaps(FILE *out, const struct wal_census *c, const struct wal_ranges *gaps)
{
    char first[WAL_NAME_MAX], last[WAL_NAME_MAX];
    size_t from = gaps->count > SHOWN_GAPS ? gaps->count - SHOWN_GAPS : 0;
    if (from > 0)
        fprintf(out, "(%zu older gaps) ", from);
    for (size_t i = from; i < gaps->count; i++) {
        const struct wal_range *r = &gaps->of[i];
        wal_census_name(c, r->tli, r->first, first);
        wal_census_name(c, r->tli, r->last, last);
        fprintf(out, "%s%s", i == from ? "" : " ", first);
        if (r->first != r->last)
            fprintf(out, "-%s", last);
    }
    if (gaps->count == 0)
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
    size_t from = c->count > SHOWN_TIMELINES ? c->count - SHOWN_TIMELINES : 0;
    if (from > 0)
        fprintf(out, "# %zu older timelines are not shown\n", from);
    if (c->strange > 0)
        fprintf(out, "# %" PRIu64 " names do not fit the segment size\n", c->strange);
    fputs("timeline\tfirst\tlast\tsegments\tmissing\tbytes\tlast_archived\tgaps\n", out);
    for (size_t i = from; i < c->count; i++) {
        const struct wal_timeline *t = &c->timelines[i];
        wal_census_name(c, t->tli, t->first, first);
        wal_census_name(c, t->tli, t->last, last);
        fprintf(out, "%" PRIu32 "\t%s\t%s\t%" PRIu64 "\t", t->tli, first, last, t->count);
        if (c->segment_size == 0)
            fputc('?', out);
        else
            fprintf(out, "%" PRIu64, wal_ranges_segments(&t->missing));
        fprintf(out, "\t%" PRIu64 "\t", t->stored_bytes);
        status_time(out, t->last_s);
        fputc('\t', out);
        if (c->segment_size == 0)
            fputc('?', out);
        else
            print_gaps(out, c, &t->missing);
        fputc('\n', out);
    }
}
