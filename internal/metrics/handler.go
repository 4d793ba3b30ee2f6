package metrics

import (
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// maxScrapes bounds the scrapes served at once, so that a misled scraper cannot take the proxy's memory.
const maxScrapes = 4

// Handler serves the collector's metrics with those of the Go runtime and of the process. A metric that cannot be had
// does not keep the others from being served.
func Handler(c *Collector) (http.Handler, error) {
	registry := prometheus.NewRegistry()
	for _, each := range []prometheus.Collector{
		c, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := registry.Register(each); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: maxScrapes, EnableOpenMetrics: true,
	}), nil
}
