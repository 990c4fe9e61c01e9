/* The parts that need no registry: names, paths, archives, stores, keys. */
#include "core/digest.h"
#include "core/mem.h"
#include "package/auth.h"
#include "package/sign.h"
#include "package/tar.h"
#include "package/transfer.h"
#include "sys/entry.h"
#include "sys/fd.h"
#include "sys/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DIGEST "sha256:8c2156ed14975e07382ca19b48a606f8f52e30cfbdbf678fb622f2a3689a74ba"

static void names_are_read_strictly(void **state)
{
    (void)state;
    struct at_pkg_ref r;
    struct at_err err;
    assert_int_equal(at_pkg_ref_parse("oci://r.io:5000/a/b-c:v1@" DIGEST, &r, &err), AT_OK);
    assert_string_equal(r.host, "r.io:5000");
    assert_string_equal(r.path, "a/b-c");
    assert_string_equal(r.tag, "v1");
    assert_string_equal(r.digest, DIGEST);
    assert_string_equal(at_pkg_ref_wanted(&r), DIGEST);
    assert_int_equal(at_pkg_ref_parse("localhost/a", &r, &err), AT_OK);
    assert_string_equal(at_pkg_ref_wanted(&r), "latest");
    assert_int_equal(at_pkg_ref_parse("oci://[::1]:5000/a:x", &r, &err), AT_OK);
    assert_string_equal(r.host, "[::1]:5000");
    assert_int_equal(at_pkg_ref_parse("oci-layout:///srv/models:digits", &r, &err), AT_OK);
    assert_int_equal(r.place, AT_PKG_LAYOUT);
    assert_string_equal(r.path, "/srv/models");
    assert_string_equal(r.tag, "digits");
    static const char *const BAD[] = {"",
                                      "digits",
                                      "oci://",
                                      "oci://r.io",
                                      "oci://r.io/",
                                      "oci://r.io/A",
                                      "oci://r.io/a/",
                                      "oci://r.io/a//b",
                                      "oci://r.io/../x",
                                      "oci://r.io/a:",
                                      "oci://r.io/a:b:c",
                                      "oci://r.io/a@sha256:12",
                                      "oci://r.io/a@md5:0",
                                      "oci://user@r.io/a",
                                      "oci://r.io:port/a",
                                      "oci://r.io/a..b",
                                      "oci://r.io/a___b",
                                      "oci://r.io/-a",
                                      "oci-layout:",
                                      "oci://r.io/a:\n",
                                      "oci://-r.io/a",
                                      "oci://r.io/a:.x",
                                      "./a/b",
                                      "oci://r io/a"};
    for (size_t i = 0; i < AT_ARRAY_LEN(BAD); i++) {
        err.msg[0] = '\0';
        assert_int_equal(at_pkg_ref_parse(BAD[i], &r, &err), AT_INVALID);
        assert_true(strlen(err.msg) > 5);
    }
}

static void paths_stay_in_their_folder(void **state)
{
    (void)state;
    char why[64];
    static const char *const GOOD[] = {"a", "a/b.c", "..a", "a..", "a/..b", "\xc3\xa9"};
    static const char *const BAD[] = {"",     "/",    "/a",     "..",    ".",
                                      "a/..", "../a", "a/../b", "a//b",  "a/./b",
                                      "a/",   "a\\b", "a\nb",   "a\x7f", "\xff"};
    for (size_t i = 0; i < AT_ARRAY_LEN(GOOD); i++) {
        assert_true(at_pkg_path_is_safe(GOOD[i], why, sizeof why));
    }
    for (size_t i = 0; i < AT_ARRAY_LEN(BAD); i++) {
        assert_false(at_pkg_path_is_safe(BAD[i], why, sizeof why));
    }
}

static void challenges_of_all_shapes(void **state)
{
    (void)state;
    struct at_pkg_challenge c;
    static const struct {
        const char *text;
        enum at_rc rc;
        bool bearer, basic;
        const char *realm;
    } CASES[] = {
        {"Basic realm=\"x\"", AT_OK, false, true, ""},
        {"bearer Realm=\"https://a/t\" , service=r,scope=\"a b\"", AT_OK, true, false,
         "https://a/t"},
        {"Basic realm=x, Bearer realm=\"https://a/t\"", AT_OK, true, true, "https://a/t"},
        {"Digest realm=\"d\", nonce=\"1\"\nBearer realm=\"https://a/t\"\n", AT_OK, true, false,
         "https://a/t"},
        {"Bearer realm=\"a\\\"b\"", AT_OK, true, false, "a\"b"},
        {"Bearer", AT_UPSTREAM, false, false, ""},
        {"Bearer realm=\"", AT_UPSTREAM, false, false, ""},
        {"Negotiate", AT_UPSTREAM, false, false, ""},
        {"", AT_UPSTREAM, false, false, ""},
        {"=x", AT_UPSTREAM, false, false, ""},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(CASES); i++) {
        enum at_rc rc = at_pkg_challenge_parse(CASES[i].text, strlen(CASES[i].text), &c, NULL);
        assert_int_equal(rc, CASES[i].rc);
        if (rc == AT_OK) {
            assert_int_equal(c.bearer, CASES[i].bearer);
            assert_int_equal(c.basic, CASES[i].basic);
            assert_string_equal(c.realm, CASES[i].realm);
        }
    }
}

static void credentials_of_the_right_host(void **state)
{
    (void)state;
    static const char TEXT[] =
        "{\"auths\":{\"https://a.io/v1/\":{\"auth\":\"YWRhOnM6Yw==\"},\"b.io:5000\":{"
        "\"identitytoken\":\"t\"},\"c.io\":{}},\"credsStore\":\"desktop\"}";
    struct at_pkg_credentials c = {0};
    assert_int_equal(at_pkg_credentials_parse(TEXT, strlen(TEXT), "a.io", &c, NULL), AT_OK);
    assert_string_equal(c.user, "ada");
    assert_string_equal(c.password, "s:c");
    at_pkg_credentials_done(&c);
    assert_int_equal(at_pkg_credentials_parse(TEXT, strlen(TEXT), "b.io:5000", &c, NULL), AT_OK);
    assert_string_equal(c.identity_token, "t");
    at_pkg_credentials_done(&c);
    assert_int_equal(at_pkg_credentials_parse(TEXT, strlen(TEXT), "b.io", &c, NULL), AT_OK);
    assert_null(c.user);
    assert_string_equal(c.helper, "desktop");
    at_pkg_credentials_done(&c);
    assert_int_equal(at_pkg_credentials_parse("[]", 2, "a.io", &c, NULL), AT_CORRUPT);
}

/* --- archives --- */

struct seen {
    char text[4096];
};

static enum at_rc on_entry(void *ctx, const struct at_tar_entry *e, struct at_err *err)
{
    struct seen *s = ctx;
    (void)err;
    snprintf(s->text + strlen(s->text), sizeof s->text - strlen(s->text), "%s%s=", e->path,
             e->is_folder ? "/" : "");
    return AT_OK;
}

static enum at_rc on_data(void *ctx, const char *data, size_t len, struct at_err *err)
{
    struct seen *s = ctx;
    (void)err;
    snprintf(s->text + strlen(s->text), sizeof s->text - strlen(s->text), "%.*s", (int)len, data);
    return AT_OK;
}

static enum at_rc on_entry_end(void *ctx, struct at_err *err)
{
    struct seen *s = ctx;
    (void)err;
    strncat(s->text, ";", sizeof s->text - strlen(s->text) - 1);
    return AT_OK;
}

static void what_is_written_is_read_again(void **state)
{
    (void)state;
    static const char ZEROS[AT_TAR_END_BYTES];
    struct at_buf tar = {0};
    struct seen seen = {{0}};
    char name[300], wanted[700];
    memset(name, 'n', 150);
    memset(name + 150, 'm', 149);
    name[150] = '/';
    name[299] = '\0';
    assert_int_equal(at_tar_head("a", 0, true, 0755, &tar), AT_OK);
    assert_int_equal(at_tar_head("a/b", 5, false, 0644, &tar), AT_OK);
    assert_int_equal(at_buf_append(&tar, "hello", 5), AT_OK);
    assert_int_equal(at_buf_append(&tar, ZEROS, at_tar_padding(5)), AT_OK);
    assert_int_equal(at_tar_head(name, 0, false, 0644, &tar), AT_OK);
    assert_int_equal(at_buf_append(&tar, ZEROS, sizeof ZEROS), AT_OK);
    const struct at_tar_events events = {
        .ctx = &seen, .on_entry = on_entry, .on_data = on_data, .on_entry_end = on_entry_end};
    struct at_tar_reader *r = at_tar_reader_new(&events, 1000);
    for (size_t i = 0; i < tar.len; i++) {
        assert_int_equal(at_tar_reader_feed(r, tar.data + i, 1, NULL), AT_OK);
    }
    assert_int_equal(at_tar_reader_end(r, NULL), AT_OK);
    at_tar_reader_free(r);
    snprintf(wanted, sizeof wanted, "a/=;a/b=hello;%s=;", name);
    assert_string_equal(seen.text, wanted);
    /* More than is allowed. */
    r = at_tar_reader_new(&events, 4);
    assert_int_equal(at_tar_reader_feed(r, tar.data, tar.len, NULL), AT_TOO_LARGE);
    at_tar_reader_free(r);
    at_buf_done(&tar);
}

/* --- stores --- */

static char *new_dir(void)
{
    const char *base = getenv("TMPDIR");
    char *dir = at_asprintf("%s/atoll-package-XXXXXX", base != NULL ? base : "/tmp");
    assert_non_null(mkdtemp(dir));
    return dir;
}

static void a_part_takes_its_name_only_when_it_is_right(void **state)
{
    (void)state;
    AT_CLEANUP(at_cleanup_free) char *dir = new_dir();
    struct at_pkg_store *s = NULL;
    char hex[AT_SHA256_HEX_BYTES], digest[AT_PKG_DIGEST_BYTES];
    int fd = -1;
    int64_t have = -1;
    assert_int_equal(at_pkg_store_open(dir, true, &s, NULL), AT_OK);
    at_sha256_hex("hello", 5, hex);
    snprintf(digest, sizeof digest, "sha256:%s", hex);
    assert_int_equal(at_pkg_store_part(s, digest, 5, NULL, &fd, &have, NULL), AT_OK);
    assert_int_equal(have, 0);
    assert_int_equal(at_entry_write(fd, "hexlo", 5, NULL), AT_OK);
    assert_int_equal(at_pkg_store_part_keep(s, digest, 5, fd, NULL), AT_CORRUPT);
    at_pkg_store_part_done(fd);
    assert_false(at_pkg_store_has(s, digest, -1));
    /* What is half there is gone on with. */
    assert_int_equal(at_pkg_store_part(s, digest, 5, NULL, &fd, &have, NULL), AT_OK);
    assert_int_equal(have, 0);
    assert_int_equal(at_entry_write(fd, "he", 2, NULL), AT_OK);
    at_pkg_store_part_done(fd);
    assert_int_equal(at_pkg_store_part(s, digest, 5, NULL, &fd, &have, NULL), AT_OK);
    assert_int_equal(have, 2);
    assert_int_equal(at_entry_write(fd, "llo", 3, NULL), AT_OK);
    assert_int_equal(at_pkg_store_part_keep(s, digest, 5, fd, NULL), AT_OK);
    at_pkg_store_part_done(fd);
    assert_true(at_pkg_store_has(s, digest, 5));
    assert_int_equal(at_pkg_store_part(s, digest, 5, NULL, &fd, &have, NULL), AT_OK);
    assert_int_equal(fd, -1);
    /* Damage is noticed when it is read. */
    AT_CLEANUP(at_cleanup_free) char *path = at_pkg_store_path(s, digest);
    struct at_buf text = {0};
    assert_int_equal(at_file_write_at(path, 0, "j", 1, NULL), AT_OK);
    assert_int_equal(at_pkg_store_read(s, digest, 100, &text, NULL), AT_CORRUPT);
    at_buf_done(&text);
    at_pkg_store_free(s);
    assert_int_equal(at_tree_remove(dir, NULL), AT_OK);
}

static void names_move_and_what_nobody_names_is_collected(void **state)
{
    (void)state;
    AT_CLEANUP(at_cleanup_free) char *dir = new_dir();
    struct at_pkg_store *s = NULL;
    char config[AT_PKG_DIGEST_BYTES], text[600];
    char manifest[2][AT_PKG_DIGEST_BYTES], found[AT_PKG_DIGEST_BYTES];
    int use = -1;
    int64_t freed = 0;
    assert_int_equal(at_pkg_store_open(dir, true, &s, NULL), AT_OK);
    assert_int_equal(at_pkg_store_put(s, "{}", 2, config, NULL), AT_OK);
    for (int i = 0; i < 2; i++) {
        json_t *d = NULL;
        snprintf(text, sizeof text,
                 "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"x/y\",\"digest\":\"%s\","
                 "\"size\":2},\"layers\":[],\"n\":%d}",
                 config, i);
        assert_int_equal(at_pkg_store_put(s, text, strlen(text), manifest[i], NULL), AT_OK);
        assert_int_equal(at_pkg_descriptor_of(s, manifest[i], &d, NULL), AT_OK);
        assert_int_equal(at_pkg_store_name(s, "m:1", d, NULL), AT_OK);
        json_decref(d);
    }
    assert_int_equal(at_pkg_store_find(s, "m:1", found, NULL), AT_OK);
    assert_string_equal(found, manifest[1]);
    assert_int_equal(at_pkg_store_find(s, NULL, found, NULL), AT_OK);
    /* Not while somebody adds. */
    assert_int_equal(at_pkg_store_use(s, &use, NULL), AT_OK);
    assert_int_equal(at_pkg_store_collect(s, &freed, NULL), AT_AGAIN);
    at_pkg_store_part_done(use);
    assert_int_equal(at_pkg_store_collect(s, &freed, NULL), AT_OK);
    assert_false(at_pkg_store_has(s, manifest[0], -1));
    assert_true(at_pkg_store_has(s, manifest[1], -1));
    assert_true(at_pkg_store_has(s, config, 2));
    assert_int_equal(at_pkg_store_unname(s, "m:1", NULL), AT_OK);
    assert_int_equal(at_pkg_store_unname(s, "m:1", NULL), AT_NOT_FOUND);
    assert_int_equal(at_pkg_store_collect(s, &freed, NULL), AT_OK);
    assert_false(at_pkg_store_has(s, config, -1));
    at_pkg_store_free(s);
    assert_int_equal(at_tree_remove(dir, NULL), AT_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_read_strictly),
        cmocka_unit_test(paths_stay_in_their_folder),
        cmocka_unit_test(challenges_of_all_shapes),
        cmocka_unit_test(credentials_of_the_right_host),
        cmocka_unit_test(what_is_written_is_read_again),
        cmocka_unit_test(a_part_takes_its_name_only_when_it_is_right),
        cmocka_unit_test(names_move_and_what_nobody_names_is_collected),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
