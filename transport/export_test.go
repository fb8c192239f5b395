package transport

// RawBatch returns the number of packets in the last batch of a UDPSender's raw socket.
func RawBatch(s Sender) int { return s.(*UDPSender).raw.batch.used }

// PlainBatches is how many batches leave without flow labels after one was refused.
const PlainBatches = plainBatches

// Messages returns the number of messages in the last batch of a UDPSender.
func Messages(s Sender) int { return s.(*UDPSender).batch.used }

// WithoutGroups reports whether a UDPSender does not try to send groups.
func WithoutGroups(s Sender) bool { return s.(*UDPSender).groups.off > 0 }

// DisableGroups makes a UDPSender behave as on a kernel without UDP_SEGMENT.
func DisableGroups(s Sender) { s.(*UDPSender).groups.none = true }
