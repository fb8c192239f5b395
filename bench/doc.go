// Package bench measures the cost of packets: in the layers alone, and through a real
// pair of namespaces.
package bench
