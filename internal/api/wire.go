package api

import "time"

// PathPrefix is the start of every path of the control API. Below it the API changes only
// by additions, such as a new field or path. Any other change needs another prefix.
const PathPrefix = "/v1/"

// ErrorTrailer is the HTTP trailer with the error of a stream of bytes.
const ErrorTrailer = "Sixfour-Error"

// Version is the answer of the path version.
type Version struct {
	Version string `json:"version"` // of the daemon
	API     int    `json:"api"`     // the number in PathPrefix
}

// Failure is the JSON form of every error.
type Failure struct {
	Error string `json:"error"`
}

// Duration is a time.Duration whose JSON form is text as in the configuration, such as
// "1.5s".
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// PingBody is the JSON form of a PingRequest. Missing fields have defaults.
type PingBody struct {
	Peer     string   `json:"peer"`
	Count    int      `json:"count,omitzero"`
	Interval Duration `json:"interval,omitzero"`
	Timeout  Duration `json:"timeout,omitzero"`
	Size     int      `json:"size,omitzero"`
}

// MTUBody is the JSON form of a request for the path MTU.
type MTUBody struct {
	Peer string `json:"peer"`
}
