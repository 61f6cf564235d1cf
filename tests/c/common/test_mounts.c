/* Which mount a request is for. */
#include "common/mounts.h"

#include <string.h>

#include "check.h"

static MountText
text(const char *words)
{
    return (MountText){.text = words, .size = (uint32_t)strlen(words)};
}

static Mount
mount_at(const char *host, const char *path)
{
    return (Mount){.host = text(host), .path = text(path)};
}

/* The number of the mount; -404 or -421 if there is none. */
static int
find(const Mounts *m, const char *host, const char *path, uint32_t *cut)
{
    const MountsFound found =
        mounts_find(m, host, strlen(host), path, strlen(path));
    CHECK((found.result == MOUNTS_FOUND) == (found.mount != NULL));
    *cut = found.cut;
    return found.result == MOUNTS_FOUND     ? (int)found.mount->number
           : found.result == MOUNTS_NO_HOST ? -421
                                            : -404;
}

static Mounts *
numbered(Mount *mounts, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        mounts[i].number = i;
    }
    Mounts *m = mounts_new(mounts, count);
    CHECK(m != NULL);
    return m;
}

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void
test_the_longest_path_by_whole_segments(void)
{
    static const struct {
        const char *path;
        int number;
        uint32_t cut;
    } cases[] = {
        {"/", 0, 0},
        {"/x", 0, 0},
        {"", 0, 0},
        {"/api", 1, 4},
        {"/api/", 1, 4},
        {"/api/x", 1, 4},
        {"/apix", 0, 0},
        {"/API", 0, 0},
        {"/api/v2", 2, 7},
        {"/api/v2/x", 2, 7},
        {"/api/v22", 1, 4},
        {"/api%2Fx", 1, 4},
        {"/ap%69/x", 1, 6},
        {"/%61%70%69", 1, 10},
        {"/api%2fv2%2Fx", 2, 9},
        {"/api%00", 0, 0},
        {"/api%00/x", 0, 0},
        {"%2Fapi", 1, 6},
        {"//api", 0, 0},
        {"/./api", 0, 0},
        {"/x/../api", 0, 0},
        {"/api//v2", 1, 4},
        {"/api/../x", 1, 4},
        {"/api/%2e%2e/x", 1, 4},
        {"/api%", 0, 0},
        {"/api%2", 0, 0},
        {"/api%zz", 0, 0},
        {"/api%252F", 0, 0},
        {"/caf%C3%A9/x", 3, 10},
        {"/caf\xc3\xa9", 3, 6},
    };
    Mount mounts[] = {mount_at("", ""), mount_at("", "/api"),
                      mount_at("", "/api/v2"), mount_at("", "/caf\xc3\xa9")};
    Mounts *m = numbered(mounts, COUNT(mounts));
    for (size_t i = 0; i < COUNT(cases); i++) {
        uint32_t cut;
        CHECK(find(m, "a.org", cases[i].path, &cut) == cases[i].number);
        CHECK(cut == cases[i].cut);
    }
    mounts_free(m);
}

static void
test_a_part_of_what_is_mounted_above(void)
{
    Mount mounts[] = {mount_at("", "/shop"), mount_at("", "/shop/admin"),
                      mount_at("", "/x")};
    mounts[1].inner = (uint32_t)strlen("/admin");
    mounts[2].inner = (uint32_t)strlen("/x");
    Mounts *m = numbered(mounts, COUNT(mounts));
    uint32_t cut;
    CHECK(find(m, "", "/shop/admin/x", &cut) == 1 && cut == 5);
    CHECK(find(m, "", "/s%68op%2Fadmin", &cut) == 1 && cut == 7);
    CHECK(find(m, "", "/shop/admins", &cut) == 0 && cut == 5);
    CHECK(find(m, "", "/x/y", &cut) == 2 && cut == 0);
    mounts_free(m);
}

static void
test_nothing_at_a_path(void)
{
    Mount mounts[] = {mount_at("", "/api"), mount_at("a.org", "/b")};
    Mounts *m = numbered(mounts, COUNT(mounts));
    uint32_t cut;
    CHECK(find(m, "a.org", "/", &cut) == -404);
    CHECK(find(m, "a.org", "", &cut) == -404);
    CHECK(find(m, "b.org", "/b", &cut) == -404);
    CHECK(find(m, "a.org", "/b", &cut) == 1);
    CHECK(find(m, "a.org", "/api", &cut) == 0);
    mounts_free(m);
}

static void
test_hosts_come_before_paths(void)
{
    static const struct {
        const char *host, *path;
        int number;
    } cases[] = {
        {"a.org", "/static/x", 1}, {"A.ORG", "/static/x", 1},
        {"a.org:8000", "/", 1},    {"a.org.", "/", 1},
        {"a.org.:80", "/", 1},     {"a.org:", "/", 1},
        {"b.org", "/static/x", 0}, {"b.org", "/x", -404},
        {"", "/static", 0},        {"x.a.org", "/", 2},
        {"x.y.a.org", "/", 2},     {"x.b.a.org", "/", 3},
        {"b.a.org", "/", 2},       {".a.org", "/", -404},
        {"xa.org", "/", -404},     {"[::1]", "/", 4},
        {"[::1]:8000", "/", 4},    {"[::2]:1", "/", -404},
        {"*.a.org", "/", 2},       {"a.org..", "/", -404},
        {".", "/", -404},          {":80", "/", -404},
    };
    Mount mounts[] = {mount_at("", "/static"), mount_at("a.org", ""),
                      mount_at("*.a.org", ""), mount_at("*.b.a.org", ""),
                      mount_at("[::1]", "")};
    Mounts *m = numbered(mounts, COUNT(mounts));
    for (size_t i = 0; i < COUNT(cases); i++) {
        uint32_t cut;
        CHECK(find(m, cases[i].host, cases[i].path, &cut) == cases[i].number);
    }
    mounts_free(m);
}

static void
test_what_its_host_lacks_a_wider_one_may_have(void)
{
    Mount mounts[] = {mount_at("a.b.org", "/only"), mount_at("*.b.org", "/api"),
                      mount_at("", "/api/v2"), mount_at("", "")};
    Mounts *m = numbered(mounts, COUNT(mounts));
    uint32_t cut;
    CHECK(find(m, "a.b.org", "/only/x", &cut) == 0);
    CHECK(find(m, "a.b.org", "/api/v2", &cut) == 1);
    CHECK(find(m, "a.b.org", "/x", &cut) == 3);
    CHECK(find(m, "b.org", "/api/v2", &cut) == 2);
    mounts_free(m);
}

static void
test_a_host_that_nobody_serves(void)
{
    Mount mounts[] = {mount_at("a.org", ""), mount_at("*.b.org", "/x")};
    Mounts *m = numbered(mounts, COUNT(mounts));
    uint32_t cut;
    CHECK(find(m, "c.org", "/", &cut) == -421);
    CHECK(find(m, "", "/", &cut) == -421);
    CHECK(find(m, "x.b.org", "/", &cut) == -404);
    CHECK(find(m, "a.org", "/x", &cut) == 0);
    mounts_free(m);
}

static void
test_the_first_of_equals(void)
{
    Mount mounts[] = {mount_at("a.org", "/x"), mount_at("a.org", "/x")};
    Mounts *m = numbered(mounts, COUNT(mounts));
    uint32_t cut;
    CHECK(find(m, "a.org", "/x", &cut) == 0);
    mounts_free(m);
}

/* Siblings, one of whose names begins another's, each with something below:
 * where the search by halves ends is mostly no mount of the path. */
static void
test_many_paths(void)
{
    enum { MANY = 600 };
    static char paths[MANY][24];
    static Mount mounts[MANY];
    for (int i = 0; i < MANY; i++) {
        static const char *const forms[] = {"/a%d", "/a%d/b/c", "/a%d-b"};
        snprintf(paths[i], sizeof paths[i], forms[i % 3], i / 3);
        mounts[i] = mount_at("", paths[i]);
    }
    Mounts *m = numbered(mounts, MANY);
    for (int i = 0; i < MANY; i += 3) {
        static const struct {
            const char *path;
            int more;
        } asked[] = {
            {"/a%d", 0},           {"/a%d/", 0},    {"/a%d/z", 0},
            {"/a%d/b", 0},         {"/a%d/b/c", 1}, {"/a%d/b/c/d", 1},
            {"/a%d-b", 2},         {"/a%d-b/c", 2}, {"/a%d/b/d", 0},
            {"/a%d%%2Fb%%2fc", 1}, {"/%%61%d", 0},
        };
        for (size_t j = 0; j < COUNT(asked); j++) {
            char path[32];
            uint32_t cut;
            snprintf(path, sizeof path, asked[j].path, i / 3);
            CHECK(find(m, "", path, &cut) == i + asked[j].more);
        }
        uint32_t cut;
        char path[32];
        snprintf(path, sizeof path, "/a%d-", i / 3);
        CHECK(find(m, "", path, &cut) == -404);
    }
    mounts_free(m);
}

static void
test_many_hosts(void)
{
    enum { MANY = 500 };
    static char names[MANY][24];
    static Mount mounts[MANY];
    for (int i = 0; i < MANY; i++) {
        snprintf(names[i], sizeof names[i], "h%d.org", i);
        mounts[i] = mount_at(names[i], "");
    }
    Mounts *m = numbered(mounts, MANY);
    uint32_t cut;
    for (int i = 0; i < MANY; i++) {
        CHECK(find(m, names[i], "/", &cut) == i);
    }
    CHECK(find(m, "h500.org", "/", &cut) == -421);
    mounts_free(m);
}

static void
test_an_empty_table(void)
{
    Mounts *m = mounts_new(NULL, 0);
    uint32_t cut;
    CHECK(m != NULL && find(m, "a.org", "/", &cut) == -421);
    mounts_free(m);
}

int
main(void)
{
    test_the_longest_path_by_whole_segments();
    test_a_part_of_what_is_mounted_above();
    test_nothing_at_a_path();
    test_hosts_come_before_paths();
    test_what_its_host_lacks_a_wider_one_may_have();
    test_a_host_that_nobody_serves();
    test_the_first_of_equals();
    test_many_paths();
    test_many_hosts();
    test_an_empty_table();
    return 0;
}
