// Package broker decides about clients of a broker: who they are, what they are given, and
// how many of their attempts are served.
package broker
