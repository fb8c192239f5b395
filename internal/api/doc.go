// Package api has the values that the daemon and the programs that ask it exchange: its
// status, its events, the plan of a reload, and questions to peers. They are plain data
// with their JSON names, and know nothing of how packets are carried, so that a program
// that shows them need not link that.
package api
