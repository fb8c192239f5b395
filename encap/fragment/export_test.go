package fragment

// Allocated returns how many bytes r has allocated, in use or free.
func Allocated(r *Reassembler) int { return r.allocated }
