// Package miredo tests the roles of Teredo with Debian's miredo and miredo-server, and with
// each other, behind NATs of Linux. The tests need root, and fail if the programs are not
// installed.
package miredo
