/* metadata_test.c: what is put there, what a guest is told of it, and its tokens; time is a number here. */
#include <pthread.h>
#include "tests/lib/test.h"
#include "vmm/api/json.h"
#include "vmm/api/metadata.h"

enum { LIMIT = 2000 };
#define SECOND	1000000000ULL

static struct metadata *m;
static struct err err;
static u64 now;
static char *answer;
static char asked[9000];

static int setup(void **state)
{
	(void)state;
	now = 1000 * SECOND;
	return metadata_new(&m, LIMIT, &err);
}

static int teardown(void **state)
{
	(void)state;
	metadata_free(m);
	free(answer);
	answer = NULL;
	return 0;
}

/* --- the user's side ------------------------------------------------------------------------ */

static int change(int (*fn)(struct metadata *, const json_t *, struct err *), const char *text)
{
	json_t *o = json_loads(text, 0, NULL);
	int rc;

	assert_non_null(o);
	rc = fn(m, o, &err);
	json_decref(o);
	return rc;
}

static void put(const char *text)
{
	assert_int_equal(change(metadata_put, text), 0);
}

static void holds(const char *want)
{
	json_t *o = metadata_get(m);
	char *text = json_dumps(o, JSON_COMPACT);

	assert_string_equal(text, want);
	free(text);
	json_decref(o);
}

static void test_put(void **state)
{
	(void)state;
	holds("{}");
	put("{\"b\":1,\"a\":{\"d\":[1,{\"y\":1,\"x\":2}],\"c\":null}}");
	holds("{\"a\":{\"c\":null,\"d\":[1,{\"x\":2,\"y\":1}]},\"b\":1}");
	put("{}");
	holds("{}");
}

static void test_patch(void **state)
{
	(void)state;
	assert_int_equal(change(metadata_patch, "{\"a\":1}"), -ENOENT);
	assert_string_equal(err.msg, "The MMDS data store is not initialized.");
	holds("{}");
	put("{\"a\":{\"b\":1,\"c\":\"x\"},\"l\":[1,2]}");
	assert_int_equal(change(metadata_patch, "{\"a\":{\"b\":null,\"n\":{\"k\":null,\"v\":true}}}"), 0);
	holds("{\"a\":{\"c\":\"x\",\"n\":{\"v\":true}},\"l\":[1,2]}");
	/* A list is replaced, as is what was none of an object; a null in a list stays. */
	assert_int_equal(change(metadata_patch, "{\"l\":[null],\"a\":{\"c\":{\"d\":{\"e\":null}}}}"), 0);
	holds("{\"a\":{\"c\":{\"d\":{}},\"n\":{\"v\":true}},\"l\":[null]}");
	assert_int_equal(change(metadata_patch, "{\"a\":null,\"none\":null}"), 0);
	holds("{\"l\":[null]}");
	assert_int_equal(change(metadata_patch, "{}"), 0);
	holds("{\"l\":[null]}");
}

/* The examples of RFC 7396, appendix A, that are objects. */
static void test_patch_examples(void **state)
{
	static const char *const row[][3] = {
		{ "{\"a\":\"b\"}", "{\"a\":\"c\"}", "{\"a\":\"c\"}" },
		{ "{\"a\":\"b\"}", "{\"b\":\"c\"}", "{\"a\":\"b\",\"b\":\"c\"}" },
		{ "{\"a\":\"b\"}", "{\"a\":null}", "{}" },
		{ "{\"a\":\"b\",\"b\":\"c\"}", "{\"a\":null}", "{\"b\":\"c\"}" },
		{ "{\"a\":[\"b\"]}", "{\"a\":\"c\"}", "{\"a\":\"c\"}" },
		{ "{\"a\":\"c\"}", "{\"a\":[\"b\"]}", "{\"a\":[\"b\"]}" },
		{ "{\"a\":{\"b\":\"c\"}}", "{\"a\":{\"b\":\"d\",\"c\":null}}", "{\"a\":{\"b\":\"d\"}}" },
		{ "{\"a\":[{\"b\":\"c\"}]}", "{\"a\":[1]}", "{\"a\":[1]}" },
		{ "{\"e\":null}", "{\"a\":1}", "{\"a\":1,\"e\":null}" },
		{ "{}", "{\"a\":{\"bb\":{\"ccc\":null}}}", "{\"a\":{\"bb\":{}}}" },
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(row); i++) {
		put(row[i][0]);
		assert_int_equal(change(metadata_patch, row[i][1]), 0);
		holds(row[i][2]);
	}
}

/* As long as may be, a byte more, and no change by what fails. */
static void test_limit(void **state)
{
	static char text[LIMIT + 100], longer[LIMIT + 100];
	int room = LIMIT - (int)strlen("{\"a\":\"\"}");

	(void)state;
	memset(longer, 'x', sizeof(longer) - 1);
	snprintf(text, sizeof(text), "{ \"a\" : \"%.*s\" }", room, longer);
	put(text);
	snprintf(text, sizeof(text), "{\"a\":\"%.*s\"}", room + 1, longer);
	assert_int_equal(change(metadata_put, text), -EFBIG);
	assert_string_equal(err.msg, "The MMDS patch request doesn't fit.");
	assert_int_equal(change(metadata_patch, "{\"b\":1}"), -EFBIG);
	snprintf(text, sizeof(text), "{\"a\":\"%.*s\"}", room, longer);
	holds(text);
	assert_int_equal(change(metadata_patch, "{\"a\":null,\"b\":1}"), 0);
	holds("{\"b\":1}");
}

/* --- the guest's side ---------------------------------------------------------------------------- */

static const char *ask_with(const char *method, const char *path, const char *headers)
{
	size_t len;

	free(answer);
	snprintf(asked, sizeof(asked), "%s %s HTTP/1.1\r\nHost: 169.254.169.254\r\n%s\r\n", method, path, headers);
	answer = metadata_answer(m, asked, strlen(asked), false, now, &len);
	assert_non_null(answer);
	assert_int_equal(len, strlen(answer));
	return answer;
}

/* The status and the body; the length is right. */
static void told(unsigned status, const char *body)
{
	char start[40], length[60];
	const char *at = strstr(answer, "\r\n\r\n");

	assert_non_null(at);
	snprintf(start, sizeof(start), "HTTP/1.1 %u ", status);
	if (strncmp(answer, start, strlen(start)) || strcmp(at + 4, body))
		fail_msg("not %u %s: %s", status, body, answer);
	snprintf(length, sizeof(length), "Content-Length: %zu\r\n", strlen(body));
	assert_says(answer, length);
	assert_says(answer, "\r\nConnection: close\r\n");
}

#define get(path, headers, status, body) \
	do { \
		ask_with("GET", path, headers); \
		told(status, body); \
	} while (0)
#define JSON	"Accept: application/json\r\n"

/* No deeper than the guest's thread can go. */
static void test_depth(void **state)
{
	char text[2 * METADATA_DEPTH + 20] = "{\"a\":";
	size_t len = strlen(text), lists = METADATA_DEPTH;

	(void)state;
	for (int fits = 0; fits < 2; fits++, lists--) {
		memset(text + len, '[', lists);
		memset(text + len + lists, ']', lists);
		snprintf(text + len + 2 * lists, 2, "}");
		assert_int_equal(change(metadata_put, text), fits ? 0 : -EINVAL);
	}
	holds(text);
	assert_int_equal(change(metadata_patch, "{\"b\":{\"c\":1}}"), 0);
	assert_int_equal(change(metadata_patch, text), 0);
}

/* As they were written, where that is the same number. */
static void test_numbers(void **state)
{
	json_t *o;
	char *text;

	(void)state;
	put("{\"a\":[12.12,0.1,1.0,-5]}");
	get("/a", JSON, 200, "[12.12,0.1,1.0,-5]");
	o = metadata_get(m);
	text = json_text(o);
	assert_string_equal(text, "{\"a\":[12.12,0.1,1.0,-5]}");
	free(text);
	json_decref(o);
	put("{\"a\":0.30000000000000004}");
	get("/a", JSON, 200, "0.30000000000000004");
}

static void test_paths(void **state)
{
	(void)state;
	put("{\"latest\":{\"meta-data\":{\"id\":\"i-1\",\"list\":[\"p\",[\"q\"]],\"n\":12,\"o\":{\"k\":\"v\"},"
	    "\"empty\":\"\",\"no\":false,\"nil\":null,\"a/b\":\"slash\",\"a~b\":\"tilde\"}}}");
	get("/", "", 200, "latest/");
	get("/latest", "", 200, "meta-data/");
	get("/latest/meta-data", "", 200, "a/b\na~b\nempty\nid\nlist\nn\nnil\nno\no/");
	get("//latest///meta-data//id/", "", 200, "i-1");
	get("http://169.254.169.254/latest/meta-data/id", "", 200, "i-1");
	get("/latest/meta-data/id?x=/y", "", 200, "i-1");
	get("/latest/meta-data/list/0", "", 200, "p");
	get("/latest/meta-data/list/1/0", "", 200, "q");
	get("/latest/meta-data/empty", "", 200, "");
	get("/latest/meta-data/a~1b", "", 200, "slash");
	get("/latest/meta-data/a~0b", "", 200, "tilde");
	get("/latest/meta-data/o", JSON, 200, "{\"k\":\"v\"}");
	assert_says(answer, "Content-Type: application/json\r\n");
	get("/latest/meta-data/o", "", 200, "k");
	assert_says(answer, "Content-Type: text/plain\r\n");
	get("/latest/meta-data/n", JSON, 200, "12");
	get("/latest/meta-data/id", "aCCept:  text/html, Application/JSON;q=1 \r\n", 200, "\"i-1\"");
	get("/latest/meta-data/id", "Accept: plain/text\r\n", 200, "i-1");
	get("/latest/meta-data/nil", JSON, 200, "null");
	for (unsigned i = 0; i < 4; i++) {
		static const char *const path[] = { "n", "list", "no", "nil" };
		char whole[60];

		snprintf(whole, sizeof(whole), "/latest/meta-data/%s", path[i]);
		get(whole, "", 501, "Cannot retrieve value. The value has an unsupported type.");
	}
	get("/late", "", 404, "Resource not found: /late.");
	get("/latest/meta-data/id/x", "", 404, "Resource not found: /latest/meta-data/id/x.");
	get("/latest/meta-data/list/2", JSON, 404, "Resource not found: /latest/meta-data/list/2.");
	get("/latest/meta-data/list/00", JSON, 404, "Resource not found: /latest/meta-data/list/00.");
	get("/latest/meta-data/list/-", JSON, 404, "Resource not found: /latest/meta-data/list/-.");
	get("/latest/meta-data/list/4294967296", JSON, 404,
	    "Resource not found: /latest/meta-data/list/4294967296.");
}

/* As after a restore. */
static void test_nothing(void **state)
{
	(void)state;
	get("/", JSON, 200, "null");
	get("/", "", 501, "Cannot retrieve value. The value has an unsupported type.");
	get("/latest", "", 404, "Resource not found: /latest.");
}

static void test_compat(void **state)
{
	(void)state;
	put("{\"a\":{\"b\":\"c\"},\"n\":1}");
	metadata_configure(m, &(struct mmds_config){ .imds_compat = true });
	get("/a", JSON, 200, "b");
	assert_says(answer, "Content-Type: text/plain\r\n");
	get("/a/b", JSON, 200, "c");
	get("/n", JSON, 501, "Cannot retrieve value. The value has an unsupported type.");
}

static void raw(const char *text, unsigned status, const char *body)
{
	size_t len;

	free(answer);
	answer = metadata_answer(m, text, strlen(text), false, now, &len);
	assert_non_null(answer);
	told(status, body);
}

static void test_malformed(void **state)
{
	size_t len;

	(void)state;
	put("{\"a\":\"b\"}");
	raw("\r\n\r\n", 400, "Invalid request.");
	raw("GET\r\n\r\n", 400, "Invalid request.");
	raw("GET /a\r\n\r\n", 400, "Invalid request.");
	raw("GET /a HTTP/2.0\r\n\r\n", 400, "Invalid request.");
	raw("GET /a HTTP/1.1 \r\n\r\n", 400, "Invalid request.");
	raw("GET a HTTP/1.1\r\n\r\n", 400, "Invalid URI.");
	raw("GET http:// HTTP/1.0\r\n\r\n", 400, "Invalid URI.");
	raw("GET http://x HTTP/1.0\r\n\r\n", 400, "Invalid URI.");
	raw("GET /a HTTP/1.1\r\nno colon\r\n\r\n", 400, "Invalid request.");
	raw("GET /a HTTP/1.1\r\n: x\r\n\r\n", 400, "Invalid request.");
	raw("GET /a HTTP/1.1\r\nA b: x\r\n\r\n", 400, "Invalid request.");
	raw("GET /a HTTP/1.1\r\nContent-Length: 100\r\n\r\nsome body", 400, "Invalid request.");
	raw("GET /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "Invalid request.");
	raw("GET /a HTTP/1.0\r\nContent-Length: 0\r\n\r\n", 200, "b");
	raw("GET /a HTTP/1.1\r\nAccept:\r\n\r\n", 200, "b");
	raw("DELETE /a HTTP/1.1\r\n\r\n", 405, "Not allowed HTTP method.");
	assert_says(answer, "\r\nAllow: GET, PUT\r\n");
	raw("get /a HTTP/1.1\r\n\r\n", 405, "Not allowed HTTP method.");
	free(answer);
	answer = metadata_answer(m, "GET /a\0 HTTP/1.1\r\n\r\n", 20, false, now, &len);
	told(400, "Invalid request.");
	free(answer);
	answer = metadata_answer(m, "GET /a HTTP/1.1\r\n\r\n", 19, true, now, &len);
	told(400, "Invalid request.");
}

/* --- tokens --------------------------------------------------------------------------------------- */

static const char *const no_token = "No MMDS token provided. Use `X-metadata-token` or "
	"`X-aws-ec2-metadata-token` header to specify the session token.";

static void new_token(char token[METADATA_TOKEN_LEN + 1], const char *header, unsigned seconds)
{
	char text[100];
	const char *body;

	snprintf(text, sizeof(text), "%s: %u\r\n", header, seconds);
	body = strstr(ask_with("PUT", "/latest/api/token", text), "\r\n\r\n");
	assert_says(answer, "HTTP/1.1 200 OK\r\n");
	assert_int_equal(strlen(body + 4), METADATA_TOKEN_LEN);
	memcpy(token, body + 4, METADATA_TOKEN_LEN + 1);
}

static void use_token(const char *token, unsigned status)
{
	char text[200];

	snprintf(text, sizeof(text), "X-metadata-token: %s\r\n", token);
	get("/a", text, status, status == 200 ? "b" : "MMDS token not valid.");
	snprintf(text, sizeof(text), "x-AWS-ec2-metadata-token:%s\r\n", token);
	get("/a", text, status, status == 200 ? "b" : "MMDS token not valid.");
}

static void test_tokens(void **state)
{
	char token[METADATA_TOKEN_LEN + 1], other[METADATA_TOKEN_LEN + 1], more[METADATA_TOKEN_LEN + 2];

	(void)state;
	put("{\"a\":\"b\"}");
	metadata_configure(m, &(struct mmds_config){ .v2 = true });
	get("/a", "", 401, no_token);
	use_token("", 401);
	use_token("x", 401);
	use_token("000000000000000000000000000000000000000000000000", 401);
	new_token(token, "X-metadata-token-ttl-seconds", 60);
	new_token(other, "X-aws-ec2-metadata-token-ttl-seconds", 21600);
	assert_string_not_equal(token, other);
	use_token(token, 200);
	use_token(other, 200);
	for (unsigned i = 0; i < METADATA_TOKEN_LEN; i += METADATA_TOKEN_LEN - 1) {
		token[i] ^= 1;
		use_token(token, 401);
		token[i] ^= 1;
	}
	snprintf(more, sizeof(more), "%s0", token);
	use_token(more, 401);
	more[METADATA_TOKEN_LEN - 1] = 0;
	use_token(more, 401);
	now += 60 * SECOND - 1;
	use_token(token, 200);
	now++;
	use_token(token, 401);
	use_token(other, 200);
	assert_int_equal(metadata_counters(m)->no_token, 1);
	assert_int_equal(metadata_counters(m)->invalid_token, 16);
	/* Another guest's are not this one's; what is there is the same. */
	metadata_restart(m);
	use_token(other, 401);
	holds("{\"a\":\"b\"}");
}

/* V1 gives tokens to those who ask, and wants none. */
static void test_v1(void **state)
{
	char token[METADATA_TOKEN_LEN + 1];

	(void)state;
	put("{\"a\":\"b\"}");
	new_token(token, "X-metadata-token-ttl-seconds", 1);
	use_token(token, 200);
	assert_int_equal(metadata_counters(m)->invalid_token, 0);
	use_token("wrong", 200);
	assert_int_equal(metadata_counters(m)->invalid_token, 2);
	get("/a", "", 200, "b");
	assert_int_equal(metadata_counters(m)->no_token, 1);
}

static void test_token_requests(void **state)
{
	static const char *const ttl[] = { "0", "21601", "x", "1x", "-1", "99999999999999999999", "" };
	char header[80], why[140];

	(void)state;
	metadata_configure(m, &(struct mmds_config){ .v2 = true });
	for (unsigned i = 0; i < ARRAY_SIZE(ttl); i++) {
		snprintf(header, sizeof(header), "X-metadata-token-ttl-seconds: %s\r\n", ttl[i]);
		snprintf(why, sizeof(why), "Invalid time to live value provided for token: %s. Please "
			 "provide a value between 1 and 21600.", ttl[i]);
		ask_with("PUT", "/latest/api/token", header);
		told(400, why);
	}
	ask_with("PUT", "/latest/api/token", "");
	told(400, "Token time to live value not found. Use `X-metadata-token-ttl-seconds` or "
	     "`X-aws-ec2-metadata-token-ttl-seconds` header to specify the token's lifetime.");
	ask_with("PUT", "/latest/api/toke", "X-metadata-token-ttl-seconds: 60\r\n");
	told(404, "Resource not found: /latest/api/toke.");
	ask_with("PUT", "/latest/api/token/more", "X-metadata-token-ttl-seconds: 60\r\n");
	told(404, "Resource not found: /latest/api/token/more.");
	ask_with("PUT", "/", "x-forwarded-for: foo\r\n");
	told(400, "Invalid header. Reason: Unsupported header name. Key: X-Forwarded-For");
	ask_with("PUT", "/latest/api/token", "X-metadata-token-ttl-seconds: 60\r\nX-Forwarded-For: a\r\n");
	told(400, "Invalid header. Reason: Unsupported header name. Key: X-Forwarded-For");
}

/* More than there is room for: those go that would have ended first. */
static void test_many_tokens(void **state)
{
	static char token[METADATA_TOKENS + 1][METADATA_TOKEN_LEN + 1];

	(void)state;
	put("{\"a\":\"b\"}");
	metadata_configure(m, &(struct mmds_config){ .v2 = true });
	for (unsigned i = 0; i < METADATA_TOKENS; i++)
		new_token(token[i], "X-metadata-token-ttl-seconds", 100 + i);
	use_token(token[0], 200);
	/* One that ends soon, but is the newest, stays: the oldest goes. */
	new_token(token[METADATA_TOKENS], "X-metadata-token-ttl-seconds", 10);
	use_token(token[0], 401);
	new_token(token[0], "X-metadata-token-ttl-seconds", 10);
	use_token(token[1], 401);
	for (unsigned i = 2; i <= METADATA_TOKENS; i++)
		use_token(token[i], 200);
	/* And before any that is good one that has ended. */
	now += 10 * SECOND;
	use_token(token[0], 401);
	new_token(token[0], "X-metadata-token-ttl-seconds", 100);
	for (unsigned i = 2; i < METADATA_TOKENS; i++)
		use_token(token[i], 200);
}

/* --- two threads ------------------------------------------------------------------------------------ */

enum { TURNS = 300 };

/* What it is told is the one or the other, never a part of each. */
static void *guest(void *arg)
{
	static const char request[] = "GET / HTTP/1.1\r\nAccept: application/json\r\n\r\n";
	unsigned *wrong = arg;

	for (int i = 0; i < TURNS; i++) {
		size_t len;
		char *text = metadata_answer(m, request, sizeof(request) - 1, false, now, &len);

		if (!text || (!strstr(text, "\r\n\r\n{\"a\":1,\"b\":1}") && !strstr(text, "\r\n\r\n{\"a\":2,\"b\":2}")))
			++*wrong;
		free(text);
	}
	return NULL;
}

static void test_threads(void **state)
{
	unsigned wrong = 0;
	pthread_t thread;

	(void)state;
	put("{\"a\":1,\"b\":1}");
	assert_int_equal(pthread_create(&thread, NULL, guest, &wrong), 0);
	for (int i = 0; i < TURNS; i++) {
		json_t *o;

		assert_int_equal(change(metadata_patch, i % 2 ? "{\"a\":1,\"b\":1}" : "{\"a\":2,\"b\":2}"), 0);
		o = metadata_get(m);
		assert_int_equal(json_object_size(o), 2);
		json_decref(o);
	}
	pthread_join(thread, NULL);
	assert_int_equal(wrong, 0);
}

int main(void)
{
#define T(name)	cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_put), T(test_patch), T(test_patch_examples), T(test_limit),
		T(test_depth), T(test_numbers), T(test_paths),
		T(test_nothing), T(test_compat), T(test_malformed), T(test_tokens), T(test_v1),
		T(test_token_requests), T(test_many_tokens), T(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
