package transport

// RawBatch returns the number of packets in the last batch of a UDPSender's raw socket.
func RawBatch(s Sender) int { return s.(*UDPSender).raw.batch.used }

// PlainBatches is how many batches leave without flow labels after one was refused.
const PlainBatches = plainBatches
