package deploy_test

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"pgsidecar/internal/metrics"
)

// metric is what there is to know of one: the names of its labels.
var metric = regexp.MustCompile(`fqName: "([^"]+)".*variableLabels: \{([^}]*)\}`)

// known returns the labels of every metric of the proxy, and of histograms the series.
func known(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	descs := make(chan *prometheus.Desc, 1000)
	metrics.NewCollector(nil, nil, metrics.Build{}).Describe(descs)
	close(descs)
	for desc := range descs {
		parts := metric.FindStringSubmatch(desc.String())
		require.NotNil(t, parts, desc.String())
		labels := strings.Split(parts[2], ",")
		all[parts[1]] = labels
		if strings.HasSuffix(parts[1], "_seconds") {
			all[parts[1]+"_bucket"], all[parts[1]+"_count"] = append(labels, "le"), labels
		}
	}
	require.Greater(t, len(all), 20)
	return all
}

// checkQuery checks that an expression can be read, and that it asks for what there is.
func checkQuery(t *testing.T, query string) {
	t.Helper()
	expr, err := parser.ParseExpr(query)
	require.NoError(t, err, query)
	there, ours := known(t), 0
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		selector, ok := node.(*parser.VectorSelector)
		if !ok || !strings.HasPrefix(selector.Name, "pgsidecar_") {
			return nil
		}
		ours++
		labels, ok := there[selector.Name]
		require.True(t, ok, "%s is not there: %s", selector.Name, query)
		for _, matcher := range selector.LabelMatchers {
			switch matcher.Name {
			case "__name__", "namespace", "pod":
			default:
				require.Contains(t, labels, matcher.Name, query)
			}
		}
		return nil
	})
	require.Positive(t, ours, query)
}

func TestAlerts_askForWhatThereIs(t *testing.T) {
	rule := decode(t, read(t, "monitoring/prometheusrule.yaml"))[0].(*monitoring.PrometheusRule)
	names := map[string]bool{}
	for _, group := range rule.Spec.Groups {
		for _, r := range group.Rules {
			require.False(t, names[r.Alert], r.Alert)
			names[r.Alert] = true
			checkQuery(t, r.Expr.String())
			require.Contains(t, []string{"page", "ticket"}, r.Labels["severity"])
			require.NotEmpty(t, r.Annotations["summary"])
		}
	}
	require.Len(t, names, 13)
}

// TestAlerts_areWhatPrometheusLoads reads the groups as promtool does: its checks go beyond those of the operator's types.
func TestAlerts_areWhatPrometheusLoads(t *testing.T) {
	var rule struct{ Spec map[string]any }
	require.NoError(t, yaml.Unmarshal(read(t, "monitoring/prometheusrule.yaml"), &rule))
	groups, err := yaml.Marshal(rule.Spec)
	require.NoError(t, err)
	parsed, faults := rulefmt.Parse(groups, false)
	require.Empty(t, faults)
	require.Len(t, parsed.Groups, 1)
}

func TestPodMonitor_namesThePortByNumber(t *testing.T) {
	m := decode(t, read(t, "monitoring/podmonitor.yaml"))[0].(*monitoring.PodMonitor)
	require.EqualValues(t, 6433, *m.Spec.PodMetricsEndpoints[0].PortNumber)
}

func TestDashboard_asksForWhatThereIs(t *testing.T) {
	var dashboard struct {
		Panels []struct {
			ID      int
			Type    string
			Targets []struct{ Expr string }
		}
	}
	require.NoError(t, json.Unmarshal(read(t, "monitoring/dashboard.json"), &dashboard))
	ids := map[int]bool{}
	for _, panel := range dashboard.Panels {
		require.False(t, ids[panel.ID])
		ids[panel.ID] = true
		require.Equal(t, panel.Type == "row", len(panel.Targets) == 0)
		for _, target := range panel.Targets {
			checkQuery(t, strings.ReplaceAll(target.Expr, "$__rate_interval", "5m"))
		}
	}
	require.Greater(t, len(ids), 20)
}
