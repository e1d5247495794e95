#include <check.h>

#include "base/bytes.h"
#include "base/hash.h"
#include "moray.h"
#include "tests/unit/law.h"

static size_t write_all(void *out, size_t room)
{
    struct bytes_writer writer = bytes_write(out, room);

    bytes_put_u8(&writer, 7);
    bytes_put_u16(&writer, 0x1234);
    bytes_put_u32(&writer, 0xdeadbeef);
    bytes_put_u64(&writer, UINT64_C(0x0123456789abcdef));
    bytes_put(&writer, "name", 5);
    bytes_put(&writer, NULL, 0);
    ck_assert_int_eq(bytes_fit(&writer), writer.used <= room);
    return writer.used;
}

/* Reads all fields; returns whether the message was whole, and then checks each. */
static bool read_all(const void *data, size_t size)
{
    struct bytes_reader reader = bytes_read(data, size);
    uint8_t a = bytes_u8(&reader);
    uint16_t b = bytes_u16(&reader);
    uint32_t c = bytes_u32(&reader);
    uint64_t d = bytes_u64(&reader);
    const char *name = bytes_text(&reader, 5);

    if (!bytes_end(&reader))
        return false;
    ck_assert_uint_eq(a, 7);
    ck_assert_uint_eq(b, 0x1234);
    ck_assert_uint_eq(c, 0xdeadbeef);
    ck_assert_uint_eq(d, UINT64_C(0x0123456789abcdef));
    ck_assert_str_eq(name, "name");
    return true;
}

START_TEST(what_was_written_is_read)
{
    unsigned char message[64];
    size_t size = write_all(message, sizeof(message));

    ck_assert_uint_eq(size, 20);
    ck_assert(read_all(message, size));
}
END_TEST

START_TEST(a_message_of_any_other_length_is_bad)
{
    unsigned char message[64];
    size_t size = write_all(message, sizeof(message));

    for (size_t length = 0; length < sizeof(message); length++)
        if (length != size)
            ck_assert_msg(!read_all(message, length), "length %zu", length);
}
END_TEST

START_TEST(a_read_beyond_the_end_gives_zeros_for_ever)
{
    unsigned char message[3] = {1, 2, 3};
    struct bytes_reader reader = bytes_read(message, sizeof(message));

    ck_assert_uint_eq(bytes_u32(&reader), 0);
    ck_assert_uint_eq(bytes_u8(&reader), 0); /* though one byte was there */
    ck_assert_ptr_null(bytes_take(&reader, 0));
    ck_assert_ptr_null(bytes_take(&reader, SIZE_MAX));
    ck_assert_uint_eq(bytes_left(&reader), 0);
    ck_assert(!bytes_end(&reader));
}
END_TEST

START_TEST(an_absurd_length_is_not_believed)
{
    unsigned char message[8] = {0};
    struct bytes_reader reader = bytes_read(message, sizeof(message));

    ck_assert_ptr_null(bytes_take(&reader, SIZE_MAX - 2));
    ck_assert(reader.bad);
}
END_TEST

START_TEST(a_text_has_one_nul_and_it_is_the_last)
{
    static const char *const bad[] = {"ab\0c", "abcde"};

    for (size_t i = 0; i < 2; i++) {
        struct bytes_reader reader = bytes_read(bad[i], 5);
        ck_assert_ptr_null(bytes_text(&reader, 5));
        ck_assert(!bytes_end(&reader));
    }
    struct bytes_reader reader = bytes_read("", 1);
    ck_assert_ptr_null(bytes_text(&reader, 0));
}
END_TEST

START_TEST(a_writer_never_passes_its_room_and_tells_the_need)
{
    unsigned char message[64];

    for (size_t room = 0; room < 24; room++) {
        memset(message, 0xee, sizeof(message));
        ck_assert_uint_eq(write_all(message, room), 20);
        for (size_t i = room; i < sizeof(message); i++)
            ck_assert_msg(message[i] == 0xee, "room %zu, byte %zu", room, i);
    }
    ck_assert_uint_eq(write_all(NULL, 0), 20);
}
END_TEST

#define SAME(text)                                    \
    do {                                              \
        uint32_t compiled = MORAY_HASH(text);         \
        ck_assert_uint_eq(compiled, hash_type(text)); \
    } while (0)
START_TEST(the_hash_is_the_same_for_the_compiler_and_at_run_time)
{
    SAME("");
    SAME("int64_t");
    SAME("a");
    SAME("b"); /* hashes whose lowest bit is 0 before it is set */
    SAME("double");
    SAME("counter_actor");
    SAME("struct a_type_with_a_name");
    SAME("0123456789012345678901234567890123456789012345678901234567890123");
    SAME("0123456789012345678901234567890123456789012345678901234567890123 and more");
    ck_assert_uint_ne(hash_type("int64_t"), hash_type("int32_t"));
    ck_assert_uint_ne(hash_type(""), 0);
}
END_TEST

int main(void)
{
    TCase *laws = tcase_create("bytes");

    tcase_add_test(laws, what_was_written_is_read);
    tcase_add_test(laws, a_message_of_any_other_length_is_bad);
    tcase_add_test(laws, a_read_beyond_the_end_gives_zeros_for_ever);
    tcase_add_test(laws, an_absurd_length_is_not_believed);
    tcase_add_test(laws, a_text_has_one_nul_and_it_is_the_last);
    tcase_add_test(laws, a_writer_never_passes_its_room_and_tells_the_need);
    tcase_add_test(laws, the_hash_is_the_same_for_the_compiler_and_at_run_time);
    return law_run("bytes", laws);
}
