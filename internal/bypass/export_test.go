package bypass

import "time"

// NewPolling returns a Watch that compares the tables of iptables again after a time.
func NewPolling(every time.Duration) (*Watch, error) { return newWatch(every/10, every) }
