// Package tsp is both ends of the Tunnel Setup Protocol (RFC 5572), with the packets of its
// tunnels in UDP: a Port for clients, and a Server for a broker. Package encap/tsp has the wire
// format.
package tsp
