// Package unit holds the test that lets systemd run the daemon, by its unit.
package unit
