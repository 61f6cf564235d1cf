/* Files below folders: what is found, and what is not to be seen, with openat2
 * and without it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "common/clock.h"
#include "protocol/heads.h"
#include "worker/found.h"

static char root[] = "/tmp/poolsrv-files-XXXXXX";
static char path_of_root[64];

static const char *
below(const char *name)
{
    static char path[2][4500];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", root, name);
    return path[turn];
}

static void
write_file(const char *name, const char *text)
{
    FILE *file = fopen(below(name), "w");
    CHECK(file && fputs(text, file) >= 0 && fclose(file) == 0);
}

static void
set_time(const char *name, time_t seconds)
{
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT},
                                      {.tv_sec = seconds}};
    CHECK(utimensat(AT_FDCWD, below(name), times, 0) == 0);
}

static void
make_tree(void)
{
    CHECK(mkdtemp(root));
    CHECK(mkdir(below("in"), 0755) == 0 && mkdir(below("in/d"), 0755) == 0);
    CHECK(mkdir(below("in/empty"), 0755) == 0);
    CHECK(mkdir(below("in/.well-known"), 0755) == 0);
    CHECK(mkdir(below("out"), 0755) == 0);
    write_file("out/secret", "secret");
    write_file("in/a.css", "12345");
    write_file("in/d/index.html", "index");
    write_file("in/d/b c.txt", "b");
    write_file("in/.hidden", "hidden");
    write_file("in/.well-known/x", "x");
    write_file("in/app.3f2a91bc.js", "js");
    CHECK(symlink("a.css", below("in/inner")) == 0);
    CHECK(symlink("../in/a.css", below("in/round")) == 0);
    CHECK(symlink("../out/secret", below("in/outer")) == 0);
    CHECK(symlink(below("out/secret"), below("in/absolute")) == 0);
    CHECK(symlink("../out", below("in/outdir")) == 0);
    CHECK(symlink("loop", below("in/loop")) == 0);
    CHECK(symlink("/proc/self/root", below("in/magic")) == 0);
    CHECK(symlink("d", below("in/dlink")) == 0);
    CHECK(mkfifo(below("in/fifo"), 0644) == 0);
    const int s = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", below("in/sock"));
    CHECK(bind(s, (struct sockaddr *)&address, sizeof address) == 0);
    close(s);
    snprintf(path_of_root, sizeof path_of_root, "%s", below("in"));
}

static Folder
open_root(FolderLinks links, bool has_beneath)
{
    Folder folder = {.path = path_of_root,
                     .links = links,
                     .index = "index.html",
                     .cache_control = "",
                     .immutable = "immutable",
                     .fields = ""};
    CHECK(folders_open(&folder) == 0);
    folder.has_beneath &= has_beneath;
    return folder;
}

/* "5" is a size, else one of the results. */
static const char *
find(const Folder *folder, const char *fields, const char *path)
{
    static char text[64];
    Asked a = ask(fields);
    Found found;
    const FoundResult result = found_for(&found, folder, &a.head, a.bytes, path,
                                         strlen(path), time(NULL) + 100);
    asked_free(&a);
    switch (result) {
    case FOUND_FILE:
        snprintf(text, sizeof text, "%llu%s%s%s%s",
                 (unsigned long long)found.size, found.coding ? " " : "",
                 found.coding ? found.coding : "",
                 found.varies ? " varies" : "",
                 *found.cache_control ? " immutable" : "");
        close(found.fd);
        return text;
    case FOUND_FOLDER:
        return "folder";
    case FOUND_NOTHING:
        return "nothing";
    case FOUND_LINK:
        return "link";
    case FOUND_CLOSED:
        return "closed";
    case FOUND_FAILED:
        return "failed";
    }
    return NULL;
}

typedef struct {
    const char *path, *none, *inside, *anywhere;
    const char *walk; /* as `inside` without openat2, if that differs */
} Row;

static const Row rows[] = {
    {"/a.css", "5", "5", "5", NULL},
    {"/%61.css", "5", "5", "5", NULL},
    {"/d/b%20c.txt", "1", "1", "1", NULL},
    {"/d/", "5", "5", "5", NULL},
    {"/d", "folder", "folder", "folder", NULL},
    {"/", "nothing", "nothing", "nothing", NULL}, /* no index there */
    {"", "nothing", "nothing", "nothing", NULL},
    {"/empty", "nothing", "nothing", "nothing", NULL},
    {"/empty/", "nothing", "nothing", "nothing", NULL},
    {"/a.css/", "nothing", "nothing", "nothing", NULL},
    {"/a.css/x", "nothing", "nothing", "nothing", NULL},
    {"/none", "nothing", "nothing", "nothing", NULL},
    {"/.hidden", "nothing", "nothing", "nothing", NULL},
    {"/%2ehidden", "nothing", "nothing", "nothing", NULL},
    {"/.well-known/x", "1", "1", "1", NULL},
    {"/app.3f2a91bc.js", "2 immutable", "2 immutable", "2 immutable", NULL},
    {"/fifo", "nothing", "nothing", "nothing", NULL},
    {"/sock", "nothing", "nothing", "nothing", NULL},
    {"//a.css", "nothing", "nothing", "nothing", NULL},
    {"/d//index.html", "nothing", "nothing", "nothing", NULL},
    {"/d/../a.css", "nothing", "nothing", "nothing", NULL},
    {"/../out/secret", "nothing", "nothing", "nothing", NULL},
    {"/..%2fout/secret", "nothing", "nothing", "nothing", NULL},
    {"/%2e%2e/out/secret", "nothing", "nothing", "nothing", NULL},
    {"/d%2Findex.html", "nothing", "nothing", "nothing", NULL},
    {"/a.css%00", "nothing", "nothing", "nothing", NULL},
    {"/%00", "nothing", "nothing", "nothing", NULL},
    {"%2Fa.css", "nothing", "nothing", "nothing", NULL},
    {"/d\\index.html", "nothing", "nothing", "nothing", NULL},
    {"/inner", "link", "5", "5", "link"},
    {"/dlink/", "link", "5", "5", "nothing"},
    {"/dlink", "link", "folder", "folder", "link"},
    {"/round", "link", "link", "5", NULL}, /* leads out, and in */
    {"/outer", "link", "link", "6", NULL},
    {"/absolute", "link", "link", "6", NULL},
    {"/outdir/secret", "link", "link", "6", "nothing"},
    {"/loop", "link", "link", "link", NULL},
    {"/magic/etc/passwd", "link", "link", NULL, "nothing"},
};

static void
check(const Row *row, const Folder *folder, const char *expected)
{
    const char *got = find(folder, "", row->path);
    if (expected && strcmp(got, expected) != 0) {
        printf("%s: %s, not %s\n", row->path, got, expected);
        abort();
    }
}

static void
test_rows(void)
{
    Folder none = open_root(LINKS_NONE, true);
    Folder inside = open_root(LINKS_INSIDE, true);
    Folder anywhere = open_root(LINKS_ANYWHERE, true);
    Folder walking = open_root(LINKS_INSIDE, false);
    if (!inside.has_beneath) {
        printf("openat2 is refused here: only the walk is tested\n");
    }
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const Row *row = &rows[i];
        const char *walk = row->walk ? row->walk : row->inside;
        check(row, &none, row->none);
        check(row, &inside, inside.has_beneath ? row->inside : walk);
        check(row, &anywhere, row->anywhere);
        check(row, &walking, walk);
    }
    char longest[14000] = "/";
    memset(longest + 1, 'a', sizeof longest - 2);
    for (size_t size = sizeof longest - 1; size > 4; size -= size / 3) {
        longest[size] = '\0';
        CHECK(strcmp(find(&inside, "", longest), "nothing") == 0);
        CHECK(strcmp(find(&walking, "", longest), "nothing") == 0);
    }
    folders_close(&none);
    folders_close(&inside);
    folders_close(&anywhere);
    folders_close(&walking);
}

#define GZIP "Accept-Encoding: gzip\r\n"
#define ALL "Accept-Encoding: gzip, br, zstd\r\n"

static bool
finds(const Folder *folder, const char *fields, const char *path,
      const char *expected)
{
    const char *got = find(folder, fields, path);
    if (strcmp(got, expected) != 0) {
        printf("%s: %s, not %s\n", path, got, expected);
    }
    return strcmp(got, expected) == 0;
}

static void
test_variants(void)
{
    Folder folder = open_root(LINKS_INSIDE, true);
    write_file("in/v.css", "1234567890");
    write_file("in/v.css.gz", "123");
    write_file("in/v.css.br", "12");
    write_file("in/old.css", "1234567890");
    write_file("in/old.css.gz", "123");
    set_time("in/old.css.gz", time(NULL) - 1000);
    write_file("in/same.css", "1234567890");
    write_file("in/same.css.gz", "123");
    set_time("in/same.css", 1700000000);
    set_time("in/same.css.gz", 1700000000);
    CHECK(mkdir(below("in/x.css.gz"), 0755) == 0);
    write_file("in/x.css", "1234567890");

    CHECK(finds(&folder, ALL, "/v.css", "10"));
    folder.precompressed = true;
    CHECK(finds(&folder, "", "/v.css", "10 varies"));
    CHECK(finds(&folder, GZIP, "/v.css", "3 gzip varies"));
    CHECK(finds(&folder, ALL, "/v.css", "2 br varies"));
    CHECK(finds(&folder, ALL, "/old.css", "10"));
    CHECK(finds(&folder, ALL, "/same.css", "3 gzip varies"));
    CHECK(finds(&folder, ALL, "/x.css", "10"));
    CHECK(finds(&folder, ALL, "/a.css", "5"));
    /* What is known of them may be a second old; a file that is gone is not
     * missed. */
    CHECK(unlink(below("in/v.css.br")) == 0);
    CHECK(finds(&folder, ALL, "/v.css", "3 gzip varies"));
    CHECK(unlink(below("in/v.css.gz")) == 0);
    CHECK(finds(&folder, ALL, "/v.css", "10 varies"));
    folders_close(&folder);
}

static void
tag_of(const char *name, int64_t now, Found *found)
{
    const int fd = open(below(name), O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && found_stat(found, fd, "", now));
    close(fd);
}

static void
test_validators(void)
{
    const int64_t now = time(NULL);
    Found found;
    write_file("in/t", "1234567890");
    set_time("in/t", 1700000000);
    tag_of("in/t", now, &found);
    CHECK(found.validator.tag_size == 20 &&
          memcmp(found.tag, "\"17979cfe362a0000-a\"", 20) == 0);
    CHECK(found.validator.modified == 1700000000 && !found.validator.weak);
    set_time("in/t", now);
    tag_of("in/t", now, &found);
    CHECK(found.validator.weak);
    tag_of("in/t", now + 2, &found);
    CHECK(!found.validator.weak);
    set_time("in/t", now + 1000); /* of the future */
    tag_of("in/t", now, &found);
    CHECK(found.validator.weak && found.validator.modified < now);
    /* A time that builds put for all files says nothing. */
    for (time_t none = 0; none < 315619200; none += 315532800) {
        set_time("in/t", none);
        tag_of("in/t", now + 100, &found);
        CHECK(found.validator.modified >= now - 1);
    }
}

/* A deploy turns a link: the folder that is there now is served within a
 * second, and one that came late is found. */
static void
test_replaced(void)
{
    Folder folder = {.path = "",
                     .links = LINKS_INSIDE,
                     .index = "",
                     .cache_control = "",
                     .immutable = "",
                     .fields = ""};
    char path[100];
    snprintf(path, sizeof path, "%s", below("current"));
    folder.path = path;
    CHECK(folders_open(&folder) == 0);
    CHECK(finds(&folder, "", "/a.css", "nothing"));
    CHECK(symlink("in", path) == 0);
    folders_look(&folder, 1 * CLOCK_SECOND);
    CHECK(finds(&folder, "", "/a.css", "5"));
    const int number = folder.fd;
    CHECK(symlink("out", below("next")) == 0);
    CHECK(rename(below("next"), path) == 0);
    folders_look(&folder, 1 * CLOCK_SECOND + 5);
    CHECK(finds(&folder, "", "/a.css", "5")); /* not yet */
    folders_look(&folder, 2 * CLOCK_SECOND);
    CHECK(finds(&folder, "", "/a.css", "nothing"));
    CHECK(finds(&folder, "", "/secret", "6"));
    CHECK(unlink(path) == 0); /* the last one stays */
    folders_look(&folder, 3 * CLOCK_SECOND);
    CHECK(finds(&folder, "", "/secret", "6"));
    CHECK(folder.fd == number);
    folders_close(&folder);
}

static void
test_single(void)
{
    char path[100];
    snprintf(path, sizeof path, "%s", below("in/a.css"));
    Folder folder = {.path = path,
                     .is_file = true,
                     .index = "x",
                     .cache_control = "",
                     .immutable = "",
                     .fields = ""};
    CHECK(folders_open(&folder) == 0);
    CHECK(finds(&folder, "", "", "5"));
    CHECK(finds(&folder, "", "/", "nothing"));
    CHECK(finds(&folder, "", "/a.css", "nothing"));
    snprintf(path, sizeof path, "%s", below("in"));
    CHECK(finds(&folder, "", "", "nothing"));
    snprintf(path, sizeof path, "%s", below("in/fifo"));
    CHECK(finds(&folder, "", "", "nothing"));
    folders_close(&folder);
}

static void
test_no_descriptors(void)
{
    Folder folder = open_root(LINKS_INSIDE, true);
    struct rlimit before, none;
    CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0);
    none = before;
    none.rlim_cur = 0;
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    const bool failed = strcmp(find(&folder, "", "/a.css"), "failed") == 0;
    const int error = errno;
    CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
    CHECK(failed && error == EMFILE);
    folders_close(&folder);
}

int
main(void)
{
    make_tree();
    test_rows();
    test_variants();
    test_validators();
    test_replaced();
    test_single();
    test_no_descriptors();
    char command[100];
    snprintf(command, sizeof command, "rm -rf %s", root);
    CHECK(system(command) == 0);
    printf("%zu paths\n", sizeof rows / sizeof rows[0]);
    return 0;
}
