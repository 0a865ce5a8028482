/*
 * api_definition_test.c: the table of requests says what vmm/api/openapi.yaml says, both ways; and what
 * Firecracker's definition says, where $FIRECRACKER_DEFINITION names a copy of it.
 */
#include <yaml.h>
#include "tests/lib/test.h"
#include "vmm/api/route.h"

static yaml_document_t doc;
static bool exact;	/* else the table may ask for more than the definition does */

/* --- YAML ------------------------------------------------------------------------------------- */

static yaml_node_t *node(int index)
{
	return yaml_document_get_node(&doc, index);
}

static const char *text(const yaml_node_t *n)
{
	return n && n->type == YAML_SCALAR_NODE ? (const char *)n->data.scalar.value : NULL;
}

static yaml_node_t *get(yaml_node_t *map, const char *key)
{
	if (!map || map->type != YAML_MAPPING_NODE)
		return NULL;
	for (yaml_node_pair_t *p = map->data.mapping.pairs.start;
	     p < map->data.mapping.pairs.top; p++)
		if (!strcmp(text(node(p->key)) ?: "", key))
			return node(p->value);
	return NULL;
}

static yaml_node_t *follow(yaml_node_t *n)
{
	const char *ref = text(get(n, "$ref"));
	yaml_node_t *to;
	char path[200], *save, *part;

	if (!ref)
		return n;
	assert_int_equal(*ref, '#');
	snprintf(path, sizeof(path), "%s", ref + 2);
	to = yaml_document_get_root_node(&doc);
	for (part = strtok_r(path, "/", &save); part; part = strtok_r(NULL, "/", &save))
		to = get(to, part);
	if (!to)
		fail_msg("%s leads nowhere", ref);
	return to;
}

static bool has(yaml_node_t *list, const char *value)
{
	if (!list)
		return false;
	for (yaml_node_item_t *i = list->data.sequence.items.start;
	     i < list->data.sequence.items.top; i++)
		if (!strcmp(text(node(*i)), value))
			return true;
	return false;
}

static void load(const char *path)
{
	FILE *file = fopen(path, "r");
	yaml_parser_t parser;

	if (!file)
		fail_msg("%s is not there: run this at the root of the project", path);
	assert_true(yaml_parser_initialize(&parser));
	yaml_parser_set_input_file(&parser, file);
	if (!yaml_parser_load(&parser, &doc))
		fail_msg("%s:%zu: %s", path, parser.problem_mark.line + 1, parser.problem);
	yaml_parser_delete(&parser);
	fclose(file);
}

/* --- one object ------------------------------------------------------------------------------- */

static void same_object(const char *where, const struct schema *s, yaml_node_t *n);

static void same_words(const char *where, const struct field *f, yaml_node_t *words)
{
	unsigned nr = 0;

	if (!words)
		fail_msg("%s: no enum", where);
	for (unsigned i = 0; f->words[i]; i++) {
		nr += has(words, f->words[i]);
		if (exact && !has(words, f->words[i]))
			fail_msg("%s: the file lacks %s", where, f->words[i]);
	}
	assert_int_equal(nr, words->data.sequence.items.top - words->data.sequence.items.start);
}

static void same_limit(const char *where, const char *what, u64 ours, yaml_node_t *n)
{
	if (n && strtoull(text(n), NULL, 10) != ours)
		fail_msg("%s: %s is %llu, in the file %s", where, what, (unsigned long long)ours,
			 text(n));
	if (!n && ours && exact)
		fail_msg("%s: %s is %llu, and not in the file", where, what,
			 (unsigned long long)ours);
}

static void same_field(const char *where, const struct field *f, yaml_node_t *n)
{
	static const char *const type[] = {
		[FIELD_BOOL] = "boolean", [FIELD_NUMBER] = "integer", [FIELD_TEXT] = "string",
		[FIELD_WORD] = "string", [FIELD_OBJECT] = "object", [FIELD_OBJECTS] = "array",
		[FIELD_TEXTS] = "array", [FIELD_TEXT_MAP] = "object", [FIELD_ANY] = "object",
	};

	n = follow(n);
	if (strcmp(type[f->kind], text(get(n, "type")) ?: "no type"))
		fail_msg("%s is %s, in the file %s", where, type[f->kind], text(get(n, "type")));
	if (f->kind == FIELD_WORD)
		same_words(where, f, get(n, "enum"));
	else if (f->kind == FIELD_TEXT)
		assert_null(get(n, "enum"));
	else if (f->kind == FIELD_OBJECT)
		same_object(where, f->object, n);
	else if (f->kind == FIELD_OBJECTS)
		same_object(where, f->object, get(n, "items"));
	else if (f->kind == FIELD_NUMBER) {
		same_limit(where, "minimum", f->min, get(n, "minimum"));
		same_limit(where, "maximum", f->max, get(n, "maximum"));
	}
}

static void same_object(const char *where, const struct schema *s, yaml_node_t *n)
{
	yaml_node_t *properties, *required;
	char name[200];
	unsigned nr = 0;

	n = follow(n);
	if (!s->nr)		/* anything */
		return;
	properties = get(n, "properties");
	required = get(n, "required");
	for (unsigned i = 0; i < s->nr; i++) {
		const struct field *f = &s->fields[i];
		yaml_node_t *p = get(properties, f->name);

		snprintf(name, sizeof(name), "%s: %s.%s", where, s->name, f->name);
		if (!p)
			fail_msg("%s is not in the file", name);
		if (exact ? f->required != has(required, f->name) :
		    !f->required && has(required, f->name) && s != &api_machine_patch_schema)
			fail_msg("%s is %srequired, in the file not so", name, f->required ? "" : "not ");
		same_field(name, f, p);
		nr++;
	}
	for (yaml_node_pair_t *p = properties->data.mapping.pairs.start;
	     p < properties->data.mapping.pairs.top; p++) {
		bool known = false;

		for (unsigned i = 0; i < s->nr; i++)
			known |= !strcmp(s->fields[i].name, text(node(p->key)));
		if (!known)
			fail_msg("%s: %s.%s is in the file alone", where, s->name, text(node(p->key)));
	}
}

/* --- one request ------------------------------------------------------------------------------ */

static yaml_node_t *content(yaml_node_t *n)
{
	return get(get(get(follow(n), "content"), "application/json"), "schema");
}

/* OpenAPI 3, and 2. */
static yaml_node_t *body_of(yaml_node_t *operation)
{
	yaml_node_t *list = get(operation, "parameters");

	if (get(operation, "requestBody"))
		return content(get(operation, "requestBody"));
	for (yaml_node_item_t *i = list ? list->data.sequence.items.start : NULL;
	     list && i < list->data.sequence.items.top; i++)
		if (!strcmp(text(get(node(*i), "in")) ?: "", "body"))
			return get(node(*i), "schema");
	return NULL;
}

/* An answer that is no JSON. */
static void same_text(const char *where, const struct route *r, yaml_node_t *ok)
{
	char type[40];

	snprintf(type, sizeof(type), "%.*s", (int)strcspn(r->type, ";"), r->type);
	if (!get(get(ok, "content"), type))
		fail_msg("%s answers %s, in the file not so", where, type);
}

static void same_request(const struct route *r, yaml_node_t *operation)
{
	yaml_node_t *body = body_of(operation), *answers = get(operation, "responses");
	yaml_node_t *ok = get(answers, "200");
	char where[120];

	snprintf(where, sizeof(where), "%s %s", r->method, r->path);
	if (!body != !r->body)
		fail_msg("%s: a body %s", where, body ? "in the file alone" : "that is not in the file");
	if (body)
		same_object(where, r->body, body);
	if (r->lacks)
		return;
	if (!ok != !(r->answer || r->type) || !ok == !get(answers, "204"))
		fail_msg("%s: not the same status", where);
	if (r->type)
		same_text(where, r, ok);
	else if (ok)
		same_object(where, r->answer, content(ok) ?: get(ok, "schema"));
	else
		assert_null(content(get(answers, "204")));
}

static yaml_node_t *operation_of(const struct route *r)
{
	yaml_node_t *path = get(get(yaml_document_get_root_node(&doc), "paths"), r->path);
	char method[10] = "";

	for (unsigned i = 0; r->method[i]; i++)
		method[i] = r->method[i] | 0x20;
	return get(path, method);
}

static void in_table(const char *path, const char *method)
{
	if (!strcmp(method, "parameters"))
		return;
	for (unsigned i = 0; i < api_nr_routes; i++)
		if (!strcmp(api_routes[i].path, path) && !strcasecmp(api_routes[i].method, method))
			return;
	fail_msg("%s %s is in the file alone", method, path);
}

static void compare(const char *file, bool ours)
{
	yaml_node_t *paths;

	load(file);
	exact = ours;
	for (unsigned i = 0; i < api_nr_routes; i++) {
		const struct route *r = &api_routes[i];

		if (!strncmp(r->path, "/vmm/", 5) != ours)
			continue;
		if (!operation_of(r) && !ours && !strcmp(r->method, "DELETE"))
			continue;	/* it answers those, and does not say so */
		if (!operation_of(r))
			fail_msg("%s %s is not in the file", r->method, r->path);
		same_request(r, operation_of(r));
	}
	paths = get(yaml_document_get_root_node(&doc), "paths");
	for (yaml_node_pair_t *p = paths->data.mapping.pairs.start;
	     p < paths->data.mapping.pairs.top; p++) {
		yaml_node_t *path = node(p->value);

		for (yaml_node_pair_t *m = path->data.mapping.pairs.start;
		     m < path->data.mapping.pairs.top; m++)
			in_table(text(node(p->key)), text(node(m->key)));
	}
	yaml_document_delete(&doc);
}

static void test_own(void **state)
{
	(void)state;
	compare("vmm/api/openapi.yaml", true);
}

static void test_firecracker(void **state)
{
	const char *file = getenv("FIRECRACKER_DEFINITION");

	(void)state;
	if (!file)
		skip();
	compare(file, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_own), cmocka_unit_test(test_firecracker),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
