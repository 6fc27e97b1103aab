/* status/config: the options in effect and where each comes from, as mount/ wrote them down. */
#include "fs/status_file.h"

void status_print_config(FILE *out, const struct status_view *v)
{
    fputs(v->fs->opt.about.config == NULL ? "" : v->fs->opt.about.config, out);
}
