/* metadata.c: see metadata.h. */
#include "vmm/api/metadata.h"
#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include "vmm/api/json.h"

struct token {
	char text[METADATA_TOKEN_LEN];
	u64 until_ns;			/* 0: none */
	u64 nr;				/* the later it was made, the more */
};

struct metadata {
	pthread_mutex_t lock;		/* of all below */
	json_t *root;			/* NULL: nothing was put there yet */
	size_t precision;		/* of its numbers: json_precision */
	u64 limit;
	struct mmds_config config;
	struct metadata_counters counters;
	struct token token[METADATA_TOKENS];
	u64 nr_tokens;			/* that there ever were */
};

/* --- what is there ------------------------------------------------------------------------------ */

/* The guest's thread goes through it by recursion, on a small stack. */
static bool is_deeper(const json_t *v, unsigned levels)
{
	const char *key;
	json_t *below;
	size_t i;

	if (!json_is_object(v) && !json_is_array(v))
		return false;
	if (!levels)
		return true;
	json_array_foreach(v, i, below)
		if (is_deeper(below, levels - 1))
			return true;
	json_object_foreach((json_t *)(uintptr_t)v, key, below)
		if (is_deeper(below, levels - 1))
			return true;
	return false;
}

/*
 * Its keys in their order, as whoever lists them wants them: sorting asks the system for its
 * memory, which the guest's thread may not.  The control thread alone changes what is there.
 */
static int replace(struct metadata *m, const json_t *with, struct err *err)
{
	size_t precision = json_precision(with);
	char *text = json_dumps(with, JSON_COMPACT | JSON_SORT_KEYS | precision);
	json_t *root = NULL, *old = m->root;
	int rc = 0;

	if (is_deeper(with, METADATA_DEPTH))
		rc = err_set(err, -EINVAL, "metadata: objects and lists are at most %d levels deep", METADATA_DEPTH);
	else if (text && strlen(text) > m->limit)
		rc = err_set(err, -EFBIG, "The MMDS patch request doesn't fit.");
	else if (!text || !(root = json_parse(text, strlen(text), NULL)))
		rc = err_set(err, -ENOMEM, "out of memory");
	free(text);
	if (rc)
		return rc;
	pthread_mutex_lock(&m->lock);
	m->root = root;
	m->precision = precision;
	pthread_mutex_unlock(&m->lock);
	json_decref(old);
	return 0;
}

int metadata_put(struct metadata *m, const json_t *root, struct err *err)
{
	return replace(m, root, err);
}

static json_t *without_nulls(const json_t *from);

/* Into to, which is an object. */
static int merge(json_t *to, const json_t *patch)
{
	const char *key;
	json_t *v;
	int rc = 0;

	json_object_foreach((json_t *)(uintptr_t)patch, key, v) {
		json_t *old = json_object_get(to, key);

		if (json_is_null(v))
			json_object_del(to, key);
		else if (json_is_object(v) && json_is_object(old))
			rc = merge(old, v);
		else
			rc = json_object_set_new(to, key, without_nulls(v));
		if (rc)
			return rc;
	}
	return 0;
}

/* What a patch leaves where there was nothing. */
static json_t *without_nulls(const json_t *from)
{
	json_t *o;

	if (!json_is_object(from))
		return json_deep_copy(from);
	o = json_object();
	if (o && merge(o, from)) {
		json_decref(o);
		return NULL;
	}
	return o;
}

int metadata_patch(struct metadata *m, const json_t *patch, struct err *err)
{
	json_t *copy;
	int rc;

	if (!m->root)
		return err_set(err, -ENOENT, "The MMDS data store is not initialized.");
	copy = json_deep_copy(m->root);
	rc = !copy || merge(copy, patch) ? err_set(err, -ENOMEM, "out of memory") : 0;
	if (!rc)
		rc = replace(m, copy, err);
	json_decref(copy);
	return rc;
}

json_t *metadata_get(struct metadata *m)
{
	return m->root ? json_incref(m->root) : json_object();
}

/* --- tokens -------------------------------------------------------------------------------------- */

static bool make_token(struct metadata *m, u64 seconds, u64 now, char text[METADATA_TOKEN_LEN])
{
	static const char digit[] = "0123456789abcdef";
	u8 random[METADATA_TOKEN_LEN / 2];
	struct token *place = &m->token[0];

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return false;
	for (unsigned i = 0; i < METADATA_TOKENS && place->until_ns > now; i++)
		if (m->token[i].until_ns <= now || m->token[i].nr < place->nr)
			place = &m->token[i];
	for (size_t i = 0; i < sizeof(random); i++) {
		text[2 * i] = digit[random[i] >> 4];
		text[2 * i + 1] = digit[random[i] & 15];
	}
	memcpy(place->text, text, METADATA_TOKEN_LEN);
	place->until_ns = now + seconds * 1000000000ULL;
	place->nr = ++m->nr_tokens;
	return true;
}

/* In the same time, whatever of it is right. */
static bool is_token(const struct metadata *m, const char *text, size_t len, u64 now)
{
	bool is = false;

	if (len != METADATA_TOKEN_LEN)
		return false;
	for (unsigned i = 0; i < METADATA_TOKENS; i++) {
		const struct token *t = &m->token[i];
		u8 differs = 0;

		for (unsigned b = 0; b < METADATA_TOKEN_LEN; b++)
			differs |= t->text[b] ^ text[b];
		is |= !differs & (t->until_ns > now);
	}
	return is;
}

/* --- a request ------------------------------------------------------------------------------------- */

struct text {
	const char *at;
	size_t len;
};

struct asked {
	struct text method, path;
	struct text token, ttl;		/* at NULL: none */
	bool json, forwarded, has_body;
};

struct told {
	unsigned status;
	bool json;
	char *body;			/* for free(3); NULL: out of memory */
};

static struct told tell(unsigned status, const char *fmt, ...) printf_like(2, 3);
static struct told tell(unsigned status, const char *fmt, ...)
{
	struct told t = { .status = status };
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&t.body, fmt, ap) < 0)
		t.body = NULL;
	va_end(ap);
	return t;
}

static bool is(struct text t, const char *s)
{
	return t.len == strlen(s) && !strncasecmp(t.at, s, t.len);
}

static struct text trim(struct text t)
{
	while (t.len && (*t.at == ' ' || *t.at == '\t'))
		t.at++, t.len--;
	while (t.len && (t.at[t.len - 1] == ' ' || t.at[t.len - 1] == '\t'))
		t.len--;
	return t;
}

/* Up to the delimiter, which is skipped; false: there is none. */
static bool cut(struct text *from, const char *delimiter, struct text *piece)
{
	size_t n = strlen(delimiter);
	const char *end = memmem(from->at, from->len, delimiter, n);

	if (!end)
		return false;
	*piece = (struct text){ from->at, end - from->at };
	from->at += piece->len + n;
	from->len -= piece->len + n;
	return true;
}

/* JSON is among what it takes, separated by commas; "application/json;q=0.5" is such. */
static bool wants_json(struct text accept)
{
	static const char json[] = "application/json";

	for (size_t i = 0; i + sizeof(json) - 1 <= accept.len; i++)
		if (!strncasecmp(accept.at + i, json, sizeof(json) - 1))
			return true;
	return false;
}

static bool take_header(struct asked *a, struct text line)
{
	struct text name;

	if (!cut(&line, ":", &name) || !name.len || memchr(name.at, ' ', name.len))
		return false;
	line = trim(line);
	if (is(name, "Accept"))
		a->json = wants_json(line);
	else if (is(name, "X-metadata-token") || is(name, "X-aws-ec2-metadata-token"))
		a->token = line;
	else if (is(name, "X-metadata-token-ttl-seconds") || is(name, "X-aws-ec2-metadata-token-ttl-seconds"))
		a->ttl = line;
	else if (is(name, "X-Forwarded-For"))
		a->forwarded = true;
	else if ((is(name, "Content-Length") && !is(line, "0")) || is(name, "Transfer-Encoding"))
		a->has_body = true;
	return true;
}

/* "http://host/path?query" is "/path". */
static bool take_path(struct asked *a, struct text target)
{
	const char *query = memchr(target.at, '?', target.len);
	struct text host;

	if (query)
		target.len = query - target.at;
	if (target.len >= 7 && !strncasecmp(target.at, "http://", 7)) {
		target.at += 7;
		target.len -= 7;
		if (cut(&target, "/", &host)) {
			target.at--;
			target.len++;
		} else {
			target.len = 0;
		}
	}
	a->path = target;
	return target.len && *target.at == '/';
}

/* False: it is none. */
static bool read_request(struct text all, struct asked *a, bool *has_path)
{
	struct text line, target;

	if (memchr(all.at, 0, all.len) || !cut(&all, "\r\n", &line) || !cut(&line, " ", &a->method) ||
	    !cut(&line, " ", &target))
		return false;
	if (!is(line, "HTTP/1.1") && !is(line, "HTTP/1.0"))
		return false;
	*has_path = take_path(a, target);
	while (cut(&all, "\r\n", &line) && line.len)
		if (!take_header(a, line))
			return false;
	return !a->has_body;
}

/* --- what lies at a path --------------------------------------------------------------------------- */

/* The next name of it.  False: there is none; one slash behind the other makes none. */
static bool next_name(struct text *path, struct text *name)
{
	const char *slash;

	while (path->len && *path->at == '/')
		path->at++, path->len--;
	if (!path->len)
		return false;
	slash = memchr(path->at, '/', path->len);
	*name = (struct text){ path->at, slash ? (size_t)(slash - path->at) : path->len };
	path->at += name->len;
	path->len -= name->len;
	return true;
}

/* The escapes of a JSON pointer (RFC 6901) undone. */
static char *unescape(struct text name)
{
	char *key = malloc(name.len + 1);
	size_t n = 0;

	for (size_t i = 0; key && i < name.len; i++) {
		bool escaped = name.at[i] == '~' && i + 1 < name.len &&
			       (name.at[i + 1] == '0' || name.at[i + 1] == '1');

		key[n++] = escaped ? "~/"[name.at[++i] - '0'] : name.at[i];
	}
	if (key)
		key[n] = 0;
	return key;
}

static const json_t *item_of(const json_t *list, struct text name)
{
	size_t index = 0;

	if (name.len > 9 || (name.len > 1 && *name.at == '0'))
		return NULL;
	for (size_t i = 0; i < name.len; i++) {
		if (!isdigit((unsigned char)name.at[i]))
			return NULL;
		index = index * 10 + name.at[i] - '0';
	}
	return json_array_get(list, index);
}

/* NULL in *v: there is nothing of that path. */
static int find(const json_t **v, struct text path)
{
	struct text name;
	char *key;

	while (*v && next_name(&path, &name)) {
		if (json_is_array(*v)) {
			*v = item_of(*v, name);
			continue;
		}
		key = unescape(name);
		if (!key)
			return -ENOMEM;
		*v = json_object_get(*v, key);
		free(key);
	}
	return 0;
}

/* With a slash behind what has more below it. */
static char *list_keys(const json_t *o)
{
	const char *key;
	size_t len = 1, at = 0;
	char *text;
	json_t *v;

	json_object_foreach((json_t *)(uintptr_t)o, key, v)
		len += strlen(key) + 2;
	text = calloc(1, len);
	if (!text)
		return NULL;
	json_object_foreach((json_t *)(uintptr_t)o, key, v)
		at += snprintf(text + at, len - at, "%s%s%s", at ? "\n" : "", key, json_is_object(v) ? "/" : "");
	return text;
}

static struct told tell_value(const struct metadata *m, const struct asked *a)
{
	struct told t = { .status = 200, .json = a->json && !m->config.imds_compat };
	const json_t *v = m->root ?: json_null();

	if (find(&v, a->path))
		return t;
	if (!v)
		return tell(404, "Resource not found: %.*s.", (int)a->path.len, a->path.at);
	if (!t.json && !json_is_object(v) && !json_is_string(v))
		return tell(501, "Cannot retrieve value. The value has an unsupported type.");
	t.body = t.json ? json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY | m->precision) :
		 json_is_object(v) ? list_keys(v) : strdup(json_string_value(v));
	return t;
}

/* --- the answer -------------------------------------------------------------------------------------- */

static struct told get(struct metadata *m, const struct asked *a, u64 now)
{
	bool right = a->token.at && is_token(m, a->token.at, a->token.len, now);

	if (!a->token.at)
		counter_add(&m->counters.no_token, 1);
	else if (!right)
		counter_add(&m->counters.invalid_token, 1);
	if (m->config.v2 && !a->token.at)
		return tell(401, "No MMDS token provided. Use `X-metadata-token` or "
			    "`X-aws-ec2-metadata-token` header to specify the session token.");
	if (m->config.v2 && !right)
		return tell(401, "MMDS token not valid.");
	return tell_value(m, a);
}

/* Into a number of seconds; 0: it is none that is allowed. */
static unsigned read_ttl(struct text t)
{
	unsigned n = 0;

	for (size_t i = 0; i < t.len; i++) {
		if (!isdigit((unsigned char)t.at[i]) || n > METADATA_TTL_MAX)
			return 0;
		n = n * 10 + t.at[i] - '0';
	}
	return n <= METADATA_TTL_MAX ? n : 0;
}

static bool is_token_path(struct text path)
{
	static const char *const names[] = { "latest", "api", "token" };
	struct text name;
	unsigned n = 0;

	while (next_name(&path, &name)) {
		if (n == ARRAY_SIZE(names) || name.len != strlen(names[n]) ||
		    memcmp(name.at, names[n], name.len))
			return false;
		n++;
	}
	return n == ARRAY_SIZE(names);
}

static struct told put(struct metadata *m, const struct asked *a, u64 now)
{
	unsigned seconds = a->ttl.at ? read_ttl(a->ttl) : 0;
	char token[METADATA_TOKEN_LEN];

	/* A proxy would hand tokens out to others. */
	if (a->forwarded)
		return tell(400, "Invalid header. Reason: Unsupported header name. Key: X-Forwarded-For");
	if (!is_token_path(a->path))
		return tell(404, "Resource not found: %.*s.", (int)a->path.len, a->path.at);
	if (!a->ttl.at)
		return tell(400, "Token time to live value not found. Use `X-metadata-token-ttl-seconds` or "
			    "`X-aws-ec2-metadata-token-ttl-seconds` header to specify the token's lifetime.");
	if (!seconds)
		return tell(400, "Invalid time to live value provided for token: %.*s. Please provide a "
			    "value between 1 and %d.", (int)a->ttl.len, a->ttl.at, METADATA_TTL_MAX);
	if (!make_token(m, seconds, now, token))
		return tell(500, "no randomness");
	return tell(200, "%.*s", METADATA_TOKEN_LEN, token);
}

static struct told serve(struct metadata *m, struct text request, bool too_long, u64 now,
			 struct asked *a)
{
	bool has_path = false;

	if (too_long || !read_request(request, a, &has_path))
		return tell(400, "Invalid request.");
	if (!has_path)
		return tell(400, "Invalid URI.");
	/* Methods are words in capitals. */
	if (a->method.len == 3 && !memcmp(a->method.at, "GET", 3))
		return get(m, a, now);
	if (a->method.len == 3 && !memcmp(a->method.at, "PUT", 3))
		return put(m, a, now);
	return tell(405, "Not allowed HTTP method.");
}

static const char *reason(unsigned status)
{
	switch (status) {
	case 200:
		return "OK";
	case 400:
		return "Bad Request";
	case 401:
		return "Unauthorized";
	case 404:
		return "Not Found";
	case 405:
		return "Method Not Allowed";
	case 501:
		return "Not Implemented";
	default:
		return "Internal Server Error";
	}
}

char *metadata_answer(struct metadata *m, const char *request, size_t request_len, bool too_long,
		      u64 now, size_t *len)
{
	struct asked a = { 0 };
	struct told t;
	char *whole = NULL;
	int n;

	pthread_mutex_lock(&m->lock);
	t = serve(m, (struct text){ request, request_len }, too_long, now, &a);
	pthread_mutex_unlock(&m->lock);
	n = !t.body ? -1 : asprintf(&whole, "HTTP/1.1 %u %s\r\nServer: vmm\r\nConnection: close\r\n"
				    "Content-Type: %s\r\n%sContent-Length: %zu\r\n\r\n%s", t.status,
				    reason(t.status), t.json ? "application/json" : "text/plain",
				    t.status == 405 ? "Allow: GET, PUT\r\n" : "", strlen(t.body), t.body);
	free(t.body);
	*len = MAX(n, 0);
	return n < 0 ? NULL : whole;
}

/* --- its life ------------------------------------------------------------------------------------------ */

void metadata_configure(struct metadata *m, const struct mmds_config *c)
{
	m->config = *c;
}

void metadata_restart(struct metadata *m)
{
	memset(m->token, 0, sizeof(m->token));
	m->counters = (struct metadata_counters){ 0 };
}

const struct metadata_counters *metadata_counters(const struct metadata *m)
{
	return &m->counters;
}

int metadata_new(struct metadata **out, u64 limit, struct err *err)
{
	struct metadata *m = calloc(1, sizeof(*m));

	if (!m)
		return err_set(err, -ENOMEM, "out of memory");
	pthread_mutex_init(&m->lock, NULL);
	m->limit = limit;
	*out = m;
	return 0;
}

void metadata_free(struct metadata *m)
{
	if (!m)
		return;
	json_decref(m->root);
	pthread_mutex_destroy(&m->lock);
	free(m);
}
