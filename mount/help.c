#include "mount/help.h"

#include <stdio.h>

static const char text[] =
    "Usage: " HELP_USAGE "\n"
    "\n"
    "Shows a WAL-E archive as a directory tree: PostgreSQL archives and restores with cp.\n"
    "\n"
    "SOURCE is s3://bucket/any/prefix or file://localhost/directory; left out, or \"-\", it is\n"
    "WALE_S3_PREFIX, else WALE_FILE_PREFIX.\n"
    "\n"
    "  -f              stay in the foreground, log to stderr\n"
    "  -o OPTION,...   options, see below; they win over an envdir, that over the environment\n"
    "  -h, --help      this text\n"
    "  -V, --version   the version\n"
    "\n"
    "Archive:\n"
    "  envdir=DIR            read variables from the files in DIR, as envdir(8) and WAL-E do\n"
    "  endpoint=URL          S3 service other than AWS: https://host[:port] (WALE_S3_ENDPOINT)\n"
    "  url_style=STYLE       path or virtual; default: virtual for AWS, path for an endpoint\n"
    "  region=NAME           (AWS_REGION); default us-east-1\n"
    "  cafile=FILE           certificates to trust for TLS (AWS_CA_BUNDLE)\n"
    "  storage_class=CLASS   for what is written (WALE_S3_STORAGE_CLASS)\n"
    "  sse=KIND              server-side encryption: AES256, aws:kms or aws:kms:KEY\n"
    "Keys:\n"
    "  gpg_key=ID[:ID...]    encrypt to these keys (WALE_GPG_KEY_ID)\n"
    "  gpg_home=DIR          gpg's home directory (GNUPGHOME)\n"
    "  passphrase_file=FILE  the secret key's passphrase; else gpg-agent is asked\n"
    "Behaviour:\n"
    "  ro                    refuse all writing\n"
    "  hard, soft            reads wait for an unreachable store for ever (default), or fail\n"
    "  soft_timeout=S        with soft: seconds until EIO; default 60\n"
    "  write_timeout=S       seconds without progress until a write fails; default 60\n"
    "  connect_timeout=S     default 10\n"
    "  stall_timeout=S       seconds without a byte on a connection; default 20\n"
    "  request_timeout=S     for one attempt of a small request; default 30\n"
    "  cache_dir=DIR         where temporary files without a name go; default /var/tmp\n"
    "  cache_size=BYTES      decoded segments kept there (K, M, G); default 512M\n"
    "  prefetch=N            segments read ahead of a restore; default 8, 0 for none\n"
    "  partition_size=BYTES  of the tar partitions of base backups; default 256M\n"
    "  allow_delete          rmdir deletes base backups, rm deletes WAL that none needs\n"
    "Access:\n"
    "  allow_other           other users may use the mount, as file modes allow\n"
    "  uid=USER, gid=GROUP   who owns the files; default: who mounts\n"
    "  debug                 log every request\n"
    "\n"
    "Credentials are never options: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN\n"
    "in the environment or the envdir. The man page walefs(8) says more.\n";

void help_print(void)
{
    fputs(text, stdout);
}
