/* config_json.c: --config FILE: the options' names and values in a JSON object. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/api/json.h"
#include "vmm/config_own.h"

/* text, which is freed, with ",key=value" at its end; without a key only the value. */
static char *append_pair(char *text, const char *key, const json_t *v, struct err *err)
{
	char number[32], *escaped, *more;
	const char *s = json_string_value(v);
	size_t n = 0;
	int rc;

	if (json_is_boolean(v))
		s = json_is_true(v) ? "true" : "false";
	if (json_is_integer(v)) {
		snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(v));
		s = number;
	}
	if (!s) {
		err_set(err, -EINVAL, "'%s' is neither text, a whole number, true nor false",
			key ? key : "path");
		free(text);
		return NULL;
	}
	escaped = malloc(2 * strlen(s) + 1);
	for (; escaped && *s; s++) {
		if (*s == ',')
			escaped[n++] = ',';
		escaped[n++] = *s;
	}
	if (escaped)
		escaped[n] = 0;
	rc = escaped ? asprintf(&more, "%s%s%s%s%s", text, *text ? "," : "", key ? key : "",
				key ? "=" : "", escaped) : -1;
	free(escaped);
	free(text);
	if (rc < 0)
		err_set(err, -ENOMEM, "out of memory");
	return rc < 0 ? NULL : more;
}

/* An object in a list, {"path": "a", "readonly": true}, as "a,readonly=true".  What is
 * itself a list stands several times. */
static char *object_to_list(const json_t *o, struct err *err)
{
	const json_t *first = json_object_get(o, "path");
	char *text = strdup("");
	const char *key;
	json_t *v, *item;
	size_t i;

	if (!text)
		err_set(err, -ENOMEM, "out of memory");
	if (text && first)
		text = append_pair(text, NULL, first, err);
	json_object_foreach((json_t *)(uintptr_t)o, key, v) {
		if (text && json_is_array(v)) {
			json_array_foreach(v, i, item)
				if (text)
					text = append_pair(text, key, item, err);
		} else if (text && v != first) {
			text = append_pair(text, key, v, err);
		}
	}
	return text;
}

static int set_json(struct config *c, const struct option *o, const json_t *v, struct err *err)
{
	char number[32], *list;
	int rc;

	if (json_is_string(v) && o->metavar)
		return o->set(c, json_string_value(v), err);
	if (json_is_boolean(v) && !o->metavar)
		return o->set(c, json_is_true(v) ? "true" : "false", err);
	if (json_is_integer(v) && o->metavar && !o->is_list && o->set != config_parse_vsock) {
		snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(v));
		return o->set(c, number, err);
	}
	if (json_is_object(v) && (o->is_list || o->set == config_parse_vsock)) {
		if (o->set == config_parse_disk && !*(json_string_value(json_object_get(v, "path")) ?: ""))
			return err_set(err, -EINVAL, "disk: an object needs a \"path\"");
		list = object_to_list(v, err);
		if (!list)
			return err_prefix(err, "%s: ", o->name);
		rc = o->set(c, list, err);
		free(list);
		return rc;
	}
	if (json_is_array(v) && o->is_list) {
		json_t *item;
		size_t i;

		json_array_foreach(v, i, item) {
			rc = json_is_array(item) ? -EINVAL : set_json(c, o, item, err);
			if (rc)
				return json_is_array(item) ?
					err_set(err, rc, "%s: a list in a list", o->name) : rc;
		}
		return 0;
	}
	return err_set(err, -EINVAL, "%s: must be %s", o->name, !o->metavar ? "true or false" :
		       o->is_list ? "text, an object, or a list of these" :
		       o->set == config_parse_vsock ? "text or an object" : "text or a whole number");
}

int config_parse_file(struct config *c, const char *path, struct err *err)
{
	json_t *root = json_read_file(path, err), *v;
	const char *key;
	int rc = 0;

	if (!root)
		return err_prefix(err, "config ");
	if (!json_is_object(root))
		rc = err_set(err, -EINVAL, "config %s: must be an object, like {\"mem\": \"1G\"}", path);
	else
		json_object_foreach(root, key, v) {
			const struct option *o = config_find_option(key);
			const char *near = config_nearest_option(key);

			/* Options of the command line only. */
			if (near && !config_find_option(near))
				near = NULL;
			if (o)
				rc = set_json(c, o, v, err);
			else
				rc = err_set(err, -EINVAL, "unknown option '%s'%s%s%s", key,
					     near ? "; did you mean '" : "", near ? near : "",
					     near ? "'?" : "");
			if (rc) {
				err_prefix(err, "config %s: ", path);
				break;
			}
		}
	json_decref(root);
	return rc;
}
