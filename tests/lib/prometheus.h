/* prometheus.h: is this what Prometheus reads (text format, version 0.0.4)? */
#pragma once

/*
 * A test fails where text breaks a rule: names, labels, values; each family whole, once,
 * with its help and type in front; no sample twice; buckets of histograms that grow to
 * their count; counters whose name says so.
 */
void prometheus_check(const char *text);
/* Of one sample, as it stands there: "vmm_x_total{a=\"b\"}"; the test fails if it does not. */
double prometheus_value(const char *text, const char *sample);
