// Package packaging holds the test that builds the packages and installs them.
package packaging
