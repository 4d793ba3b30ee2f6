package metrics

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"pgsidecar/proxy/stats"
)

// sink takes the metrics of one scrape.
type sink chan<- prometheus.Metric

func (out sink) gauge(d *prometheus.Desc, n int, labels ...string) {
	out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
}

func (out sink) fraction(d *prometheus.Desc, n float64) {
	out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, n)
}

func (out sink) counter(d *prometheus.Desc, n uint64, labels ...string) {
	out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
}

func (out sink) seconds(d *prometheus.Desc, t time.Duration, labels ...string) {
	out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, t.Seconds(), labels...)
}

// moment shows t as seconds since 1970.
func (out sink) moment(d *prometheus.Desc, t time.Time) {
	out.seconds(d, t.Sub(time.Unix(0, 0)))
}

func (out sink) flag(d *prometheus.Desc, on bool, labels ...string) {
	n := 0
	if on {
		n = 1
	}
	out.gauge(d, n, labels...)
}

func (out sink) histogram(d *prometheus.Desc, h *stats.Distribution) {
	buckets := make(map[float64]uint64, len(h.Buckets))
	var below uint64 // Prometheus' buckets are cumulative, ours are not.
	for i, bound := range stats.Bounds() {
		below += h.Buckets[i]
		buckets[bound.Seconds()] = below
	}
	out <- prometheus.MustNewConstHistogram(d, h.Count(), h.Sum.Seconds(), buckets)
}

// poolLabel names a pool database/user. What would make two pools one, or is not UTF-8, which Prometheus refuses, is
// percent-encoded: clients choose these names.
func poolLabel(database, user string) string {
	return escape(database) + "/" + escape(user)
}

func escape(name string) string {
	if utf8.ValidString(name) && !strings.ContainsAny(name, "/%") {
		return name
	}
	var out strings.Builder
	for i, c := range name {
		_, size := utf8.DecodeRuneInString(name[i:])
		if c == '/' || c == '%' || c == utf8.RuneError && size == 1 {
			fmt.Fprintf(&out, "%%%02X", name[i])
			continue
		}
		out.WriteString(name[i : i+size])
	}
	return out.String()
}
