package proxy

import (
	"fmt"
	"strings"

	"pgsidecar/proxy/login"
	"pgsidecar/proxy/session"
	"pgsidecar/proxy/stats"
)

// routeOption is the startup parameter by which a client asks for a route. It is not passed on.
const routeOption = "pgsidecar.route"

func isRouteOption(name string) bool { return strings.EqualFold(name, routeOption) }

// routeOf decides where a client's transactions run: what it asks for comes before what is said for its database, and that before
// what is said for the address that it has come to.
func (p *Proxy) routeOf(set *setting, client *login.Client, route session.Route) (session.Route, *refusal) {
	if own := set.config.Databases[client.Database].Route; own != nil {
		route = *own
	}
	for _, parameter := range client.Settings() {
		if !isRouteOption(parameter.Name) {
			continue
		}
		asked, ok := parseRoute(parameter.Value)
		if !ok {
			return route, &refusal{
				code: "22023", message: fmt.Sprintf("invalid value for parameter %q: %q", routeOption, parameter.Value),
				hint:    "Valid values are: primary, read-write, standby, read-only, prefer-standby, any, auto.",
				outcome: stats.Broken,
			}
		}
		route = asked
	}
	return route, nil
}

// parseRoute reads a route as clients write it, in libpq's words for target_session_attrs.
func parseRoute(word string) (session.Route, bool) {
	switch word {
	case "primary", "read-write":
		return session.Primary, true
	case "standby", "read-only":
		return session.StandbyOnly, true
	case "prefer-standby":
		return session.PreferStandby, true
	case "any":
		return session.AnyServer, true
	case "auto":
		return session.Auto, true
	}
	return session.Primary, false
}
