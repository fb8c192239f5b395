// Package nats tests mechanisms that pass NATs, behind NATs of Linux: the roles of Teredo with
// Debian's miredo and miredo-server, and with each other, and those of 6bed4. The tests need
// root, and fail if the programs are not installed.
package nats
