package config

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// Listen is one place where clients connect.
type Listen struct {
	Address string // host:port, or a path; see Socket.
	Route   Route
}

// maxSocketPath is the longest path that Linux takes for a unix socket: sun_path less its NUL.
const maxSocketPath = 107

// socketName begins the names of PostgreSQL's unix sockets; libpq adds it and the port to the directory it is given.
const socketName = ".s.PGSQL."

// Socket returns network and address as net.Listen takes them. A path that is not the name of a PostgreSQL socket is the
// directory for one.
func (l Listen) Socket() (network, address string) {
	network, address = Socket(l.Address)
	if network == "unix" && !strings.HasPrefix(filepath.Base(address), socketName) {
		address = filepath.Join(address, socketName+"6432")
	}
	return network, address
}

// Socket returns network and address of a host:port or a path as net.Listen takes them.
func Socket(address string) (string, string) {
	if strings.HasPrefix(address, "/") {
		return "unix", address
	}
	return "tcp", address
}

// Local reports whether only this machine, or in a pod only its containers, can reach a host:port or a path. A name other
// than localhost is taken to be reachable, as what it resolves to may change.
func Local(address string) bool {
	if network, _ := Socket(address); network == "unix" {
		return true
	}
	host, _, _ := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

const addressForm = "write host:port such as 127.0.0.1:6432, or the path of a unix socket"

// checkAddress returns what is wrong with a host:port or a path.
func checkAddress(address string) *problem {
	switch network, _ := Socket(address); {
	case address == "":
		return &problem{"is empty", addressForm}
	case network == "unix" && len(address)+1+len(socketName)+5 > maxSocketPath:
		return &problem{fmt.Sprintf("path is too long for a unix socket, which ends at %d bytes", maxSocketPath), "take a shorter path"}
	case network == "unix":
		return nil
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return &problem{fmt.Sprintf("%q is not an address to listen on", address), addressForm}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
		return &problem{fmt.Sprintf("%q is not a port", port), "write a number from 1 to 65535, or 0 for any free port"}
	}
	return nil
}

// sequence returns the elements of a list; a single value is a list of one.
func sequence(n *yaml.Node) []*yaml.Node {
	if n.Kind == yaml.SequenceNode {
		return n.Content
	}
	return []*yaml.Node{n}
}

// addressList is a list of addresses. An empty one is allowed.
func addressList(to *[]string) value {
	return textList{to: to, one: "host:port or the path of a unix socket", several: "host:port and paths of unix sockets", check: checkAddress}
}

// listenList is a list of addresses that may be mappings with a route.
type listenList struct{ to *[]Listen }

func (l listenList) decode(r *reader, key string, n *yaml.Node) {
	elements := sequence(n)
	list := make([]Listen, 0, len(elements))
	before := len(r.faults)
	for i, element := range elements {
		list = append(list, decodeListen(r, fmt.Sprintf("%s[%d]", key, i), resolve(element)))
	}
	if len(list) == 0 {
		r.fault(n, key, "is an empty list", addressForm)
	}
	if len(r.faults) > before {
		r.failed[key] = true
		return
	}
	*l.to = list
}

// decodeListen reads one element of the list: an address, or a mapping with address and route.
func decodeListen(r *reader, place string, n *yaml.Node) Listen {
	listen := Listen{Route: RoutePrimary}
	address := text(&listen.Address, "host:port or the path of a unix socket")
	before := len(r.faults)
	if n.Kind == yaml.MappingNode {
		r.mapping(place+".", n, []option{
			{key: place + ".address", value: address},
			{key: place + ".route", value: route(&listen.Route)},
		})
	} else {
		address.decode(r, place, n)
	}
	if len(r.faults) > before {
		return listen
	}
	if p := checkAddress(listen.Address); p != nil {
		r.fault(n, place, p.wrong, p.instead)
	}
	return listen
}

func (l listenList) encode() *yaml.Node {
	list := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for _, listen := range *l.to {
		node := textNode(listen.Address)
		if listen.Route != RoutePrimary {
			node = &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{
				textNode("address"), node, textNode("route"), textNode(string(listen.Route)),
			}}
		}
		list.Content = append(list.Content, node)
	}
	return list
}

func (l listenList) accepts() string {
	return "a list of host:port, paths of unix sockets and {address, route}"
}
