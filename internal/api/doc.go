// Package api defines the values that the daemon exchanges with its tools: the status,
// events, the plan of a reload, pings and path MTU tests. They are plain data with their
// JSON names, so that a tool does not link the code that carries packets.
package api
