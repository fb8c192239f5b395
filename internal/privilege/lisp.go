package privilege

import (
	"sixfour/internal/config"
	"sixfour/internal/config/problem"
)

// addMapServer adds what a LISP map server needs, which may receive nowhere: then there is none.
func (n *needs) addMapServer(l *config.LISP) {
	if len(l.Listen) == 0 {
		return
	}
	n.store = true
	for i := range l.Sites { // a reload reads the keys again
		n.files = append(n.files, directoriesOf(l.Sites[i].Key.File)...)
	}
}

// mapServerProblems returns the rights that a map server needs and that the process no longer
// has. Changes of the store take effect at the next start, and are not checked.
func (s *Sandbox) mapServerProblems(l *config.LISP) (problems problem.List) {
	for i := range l.Sites {
		if right := s.lacksFor([]string{l.Sites[i].Key.File}, 0); right != "" {
			return append(problems, l.Problem(&l.Sites[i], "key_file: the daemon has given up the right to %s: restart it", right))
		}
	}
	return nil
}
