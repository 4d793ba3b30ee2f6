package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// Metrics of the Go runtime, as Prometheus's Go collector names them.
const (
	mallocsTotal = "go_memstats_mallocs_total"
	heapInuse    = "go_memstats_heap_inuse_bytes"
)

// errNoMetric says that a proxy's metrics lack the one that was asked for.
var errNoMetric = errors.New("no such metric")

// scrapeMetric reads one metric without labels. Connections are not kept, lest an idle one count as the proxy's.
func scrapeMetric(ctx context.Context, url, name string) (float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, fmt.Errorf("scrape %s: %w", url, err)
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, fmt.Errorf("scrape %s: %w", url, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("scrape %s: status %s", url, response.Status)
	}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		if value, found := strings.CutPrefix(lines.Text(), name+" "); found {
			return strconv.ParseFloat(value, 64)
		}
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("scrape %s: %w", url, err)
	}
	return 0, fmt.Errorf("scrape %s: %w: %s", url, errNoMetric, name)
}
