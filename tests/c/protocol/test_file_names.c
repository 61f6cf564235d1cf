/* What names, codings and types of files are taken for. */
#include "protocol/encodings.h"
#include "protocol/file_names.h"
#include "protocol/heads.h"
#include "protocol/media_types.h"

typedef struct {
    const char *text;
    size_t size;
    FileNameKind kind;
} Name;

#define NAME(text, kind) {text, sizeof(text) - 1, FILE_NAME_##kind}
#define TEN "0123456789"
#define FIFTY TEN TEN TEN TEN TEN

static const Name names[] = {
    NAME("", FOLDER),
    NAME("a", FILE),
    NAME("a/", FOLDER),
    NAME("a/b.css", FILE),
    NAME("a b\\c", FILE),
    NAME("a\xc3\xa9", FILE),
    NAME("a..b", FILE),
    NAME("a..", FILE),
    NAME("...", HIDDEN), /* a name like any other */
    NAME("..a", HIDDEN),
    NAME(".git/config", HIDDEN),
    NAME("a/.htaccess", HIDDEN),
    NAME("a/.b/c", HIDDEN),
    NAME(".well-known/acme-challenge/x", FILE),
    NAME(".well-known", FILE),
    NAME(".well-known/", FOLDER),
    NAME(".well-known/.x", HIDDEN),
    NAME("a/.well-known/x", HIDDEN),
    NAME(".well-knownx", HIDDEN),
    NAME("/", BAD),
    NAME("/a", BAD),
    NAME("a//b", BAD),
    NAME("a//", BAD),
    NAME(".", BAD),
    NAME("..", BAD),
    NAME("./a", BAD),
    NAME("../a", BAD),
    NAME("a/..", BAD),
    NAME("a/../b", BAD),
    NAME("a/./b", BAD),
    NAME(".x/../../b", BAD),
    NAME(".x//", BAD),
    NAME("a\0.css", BAD),
    NAME("\0", BAD),
    NAME(FIFTY FIFTY FIFTY FIFTY FIFTY "12345", FILE),
    NAME(FIFTY FIFTY FIFTY FIFTY FIFTY "123456", BAD),
};

static void
test_names(void)
{
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char *block = malloc(names[i].size + 1);
        CHECK(block);
        memcpy(block, names[i].text, names[i].size);
        if (file_names_judge(block, names[i].size) != names[i].kind) {
            printf("%zu: %s\n", i, names[i].text);
            abort();
        }
        free(block);
    }
    char longest[4097];
    for (size_t i = 0; i < sizeof longest; i++) {
        longest[i] = i % 2 ? '/' : 'a';
    }
    CHECK(file_names_judge(longest, 4095) == FILE_NAME_FILE);
    CHECK(file_names_judge(longest, 4096) == FILE_NAME_BAD);
}

static bool
hides_slash(const char *text)
{
    return file_names_hide_slash(text, strlen(text));
}

static bool
is_hashed(const char *text)
{
    return file_names_is_hashed(text, strlen(text));
}

static void
test_marks(void)
{
    CHECK(hides_slash("a%2Fb") && hides_slash("%2f") && hides_slash("%25%2F"));
    CHECK(!hides_slash("a/b") && !hides_slash("%252F") && !hides_slash("%2"));
    CHECK(!hides_slash("") && !hides_slash("%") && !hides_slash("%20"));

    CHECK(is_hashed("css/app.3f2a91bc.css")); /* Django's manifest */
    CHECK(is_hashed("app.55e7cbb9ba48.js"));
    CHECK(is_hashed("assets/index-4f5e6a7b.js.map"));
    CHECK(!is_hashed("app.css") && !is_hashed("app.3f2a91b.css"));
    CHECK(!is_hashed("app.facedeed.css")); /* a word, as far as we can see */
    CHECK(!is_hashed("report-20261126.pdf"));
    CHECK(is_hashed("img/LICENSE.2c54f4e1ca1c"));
    CHECK(!is_hashed("app.3f2a91bcx") && !is_hashed("app.3f2a91bcx.css"));
    CHECK(!is_hashed("x.3f2a91bc.d/app.css"));
    CHECK(!is_hashed("") && !is_hashed("3f2a91bc.css"));
}

static const char *
wanted(const char *fields)
{
    static char text[40];
    Encoding order[ENCODING_COUNT];
    Asked a = ask(fields);
    const uint32_t count = encodings_read(&a.head, a.bytes, order);
    asked_free(&a);
    text[0] = '\0';
    for (uint32_t i = 0; i < count; i++) {
        strcat(text, encoding_names[order[i]].suffix);
    }
    return text;
}

#define ACCEPT(value) "Accept-Encoding: " value "\r\n"

static void
test_encodings(void)
{
    static const char *const rows[][2] = {
        {"", ""},
        {ACCEPT(""), ""},
        {ACCEPT("gzip"), ".gz"},
        {ACCEPT("x-gzip"), ".gz"},
        {ACCEPT("GZIP, Br"), ".br.gz"},
        {ACCEPT("gzip, deflate, br, zstd"), ".br.zst.gz"},
        {ACCEPT("gzip;q=1.0, br;q=0.5"), ".gz.br"},
        {ACCEPT("gzip ; q=0.001"), ".gz"},
        {ACCEPT("gzip;q=0"), ""},
        {ACCEPT("gzip;q=0.000"), ""},
        {ACCEPT("*"), ".br.zst.gz"},
        {ACCEPT("*;q=0"), ""},
        {ACCEPT("br;q=0, *"), ".zst.gz"},
        {ACCEPT("gzip, *;q=0"), ".gz"},
        {ACCEPT("identity"), ""},
        {ACCEPT("identity, gzip;q=0.5"), ""}, /* rather as it is */
        {ACCEPT("identity;q=0.5, gzip;q=0.5"), ".gz"},
        {ACCEPT("identity;q=0, gzip"), ".gz"},
        {ACCEPT("gzip;q=2"), ""},
        {ACCEPT("gzip;q=0.5555"), ""},
        {ACCEPT("gzip;q="), ""},
        {ACCEPT("gzip;level=1"), ""},
        {ACCEPT("gzip;"), ""},
        {ACCEPT("gzip br"), ""},
        {ACCEPT(", ,gzip,"), ".gz"},
        {ACCEPT("br") ACCEPT("gzip"), ".br.gz"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (strcmp(wanted(rows[i][0]), rows[i][1]) != 0) {
            printf("%s%s\n", rows[i][0], wanted(rows[i][0]));
            abort();
        }
    }
}

static bool
has_type(const char *name, const char *type)
{
    static const MediaType own[] = {{"foo", "text/x-foo"}, {"css", "a/b"}};
    return strcmp(media_types_find(name, strlen(name), own, 2), type) == 0;
}

static void
test_types(void)
{
    const char *unknown = "application/octet-stream";
    CHECK(has_type("a.html", "text/html; charset=utf-8"));
    CHECK(has_type("x/a.b.HTML", "text/html; charset=utf-8"));
    CHECK(has_type("a.js", "text/javascript; charset=utf-8"));
    CHECK(has_type("a.json", "application/json"));
    CHECK(has_type("a.woff2", "font/woff2") &&
          has_type("a.7z", "application/x-7z-compressed") &&
          has_type("a.zst", "application/zstd"));
    CHECK(has_type("a.foo", "text/x-foo") && has_type("a.css", "a/b"));
    CHECK(has_type("html", unknown) && has_type("", unknown));
    CHECK(has_type("a.", unknown) && has_type(".html", unknown));
    CHECK(has_type("a/.html", unknown) && has_type("a.html/b", unknown));
    CHECK(has_type("a.nobodyknowsthissuffix", unknown));
    /* Each is found where the order of the table puts it. */
    static const char *const some[] = {"3g2",  "css", "h",   "png", "zip",
                                       "webp", "m4s", "apk", "xz",  "appcache"};
    for (size_t i = 0; i < sizeof some / sizeof some[0]; i++) {
        char name[20];
        snprintf(name, sizeof name, "a.%s", some[i]);
        CHECK(!has_type(name, unknown));
    }
}

int
main(void)
{
    test_names();
    test_marks();
    test_encodings();
    test_types();
    printf("%zu names\n", sizeof names / sizeof names[0]);
    return 0;
}
