package api

import (
	"fmt"
	"time"
)

// PingRequest are the parameters of a ping. A field that is zero gets its default.
type PingRequest struct {
	Peer     string        `json:"peer"`     // "TUNNEL", "TUNNEL/PEER", or a peer's name that only one tunnel has
	Count    int           `json:"count"`    // 1 to 100,000; default 4
	Interval time.Duration `json:"interval"` // 10 ms to an hour; default 1 s
	Timeout  time.Duration `json:"timeout"`  // for each answer, 1 ms to a minute; default 1 s
	Size     int           `json:"size"`     // of the outer packets, in bytes; default: the smallest
}

// Limits and defaults of a PingRequest. Timeouts are for each answer.
const (
	pingCount       = 4
	pingInterval    = time.Second
	PingTimeout     = time.Second
	maxPingCount    = 100_000
	minPingInterval = 10 * time.Millisecond
	maxPingInterval = time.Hour
	minPingTimeout  = time.Millisecond
	MaxPingTimeout  = time.Minute
	MaxPingSize     = 65535
)

// Check sets the fields that are zero to their defaults. It returns an error if a field is
// out of range.
func (r *PingRequest) Check() error {
	if r.Count == 0 {
		r.Count = pingCount
	}
	if r.Interval == 0 {
		r.Interval = pingInterval
	}
	if r.Timeout == 0 {
		r.Timeout = PingTimeout
	}
	switch {
	case r.Count < 1 || r.Count > maxPingCount:
		return fmt.Errorf("count is %d: it must be from 1 to %d", r.Count, maxPingCount)
	case r.Interval < minPingInterval || r.Interval > maxPingInterval:
		return fmt.Errorf("interval is %v: it must be from %v to %v", r.Interval, minPingInterval, maxPingInterval)
	case r.Timeout < minPingTimeout || r.Timeout > MaxPingTimeout:
		return fmt.Errorf("timeout is %v: it must be from %v to %v", r.Timeout, minPingTimeout, MaxPingTimeout)
	case r.Size < 0 || r.Size > MaxPingSize:
		return fmt.Errorf("size is %d: it must be from 0 to %d", r.Size, MaxPingSize)
	}
	return nil
}

// PingReply is the result of one echo request.
type PingReply struct {
	Seq    int     `json:"seq"`  // from 1
	Size   int     `json:"size"` // of the outer packet, in bytes; 0: the smallest
	RTT    float64 `json:"rtt_seconds"`
	Lost   bool    `json:"lost"`
	Detail string  `json:"detail,omitempty"` // what an answer shows, or why there is none
}

// MTUProbe is the result of one probe of the path MTU.
type MTUProbe struct {
	Size     int  `json:"size"` // of the outer packet, in bytes
	Answered bool `json:"answered"`
}

// MTUResult is the result of a search for the path MTU: the size in bytes of the largest
// outer packet that was answered, and of the largest inner packet that fits into it.
type MTUResult struct {
	PathMTU   int    `json:"path_mtu"`
	TunnelMTU int    `json:"mtu"`
	By        string `json:"by"`
}
