// Package bench measures what packets cost: in the layers alone, and through a
// real pair of namespaces.
package bench
