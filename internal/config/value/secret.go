package value

import (
	"path/filepath"

	"sixfour/internal/config"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
)

// File reads the path of a file.
func File(r *problem.Report, e tree.Entry) (string, bool) {
	const want = "the absolute path of a file"
	s, ok := String(r, e, want)
	if ok && !filepath.IsAbs(s) {
		Refuse(r, e, want)
		return "", false
	}
	return s, ok
}

// Secret reads the path of a file with a secret of at least so many bytes, and the secret
// itself if the report says how. A file that cannot be read is a doubt.
func Secret(r *problem.Report, e tree.Entry, least int) (s config.Secret, ok bool) {
	if s.File, ok = File(r, e); !ok || r.ReadSecret == nil {
		return s, ok
	}
	text, err := r.ReadSecret(s.File)
	switch {
	case err != nil:
		r.Doubt(e.At, "%s is %s: %v", e.Name, problem.Quote(s.File), err)
		return s, r.Lenient
	case len(text) < least:
		r.Add(e.At, "%s is %s, with a secret of %d bytes: it must have at least %d: openssl rand -base64 32 makes a good one", e.Name, problem.Quote(s.File), len(text), least)
		return s, false
	}
	return s.With(text), true
}
