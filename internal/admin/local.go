package admin

import (
	"net"
	"net/http"
)

// local lets only requests through that were made on this machine, which in a pod means by one of its containers.
//
// The peer's address alone does not prove that: a mesh's proxy in the same pod passes on what comes from outside, from a
// loopback address but to the pod's own. So both ends have to be loopback. And a browser may be led to loopback by a name
// that an attacker controls; so the request has to name a loopback address as well, not some name.
func local(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !fromThisMachine(r) {
			http.Error(w, "only on loopback or a unix socket: "+
				"use 127.0.0.1 in the same pod, or add a unix socket to http.listen", http.StatusForbidden)
			return
		}
		next(w, r)
	})
}

func fromThisMachine(r *http.Request) bool {
	switch own := r.Context().Value(http.LocalAddrContextKey).(type) {
	case *net.UnixAddr:
		return true
	case *net.TCPAddr:
		peer, _, _ := net.SplitHostPort(r.RemoteAddr)
		return own.IP.IsLoopback() && net.ParseIP(peer).IsLoopback() && namesLoopback(r.Host)
	default:
		return false
	}
}

// namesLoopback reports whether the Host of a request is a loopback address or localhost.
func namesLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	} else if len(host) > 1 && host[0] == '[' && host[len(host)-1] == ']' {
		host = host[1 : len(host)-1]
	}
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}
