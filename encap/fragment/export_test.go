package fragment

// Allocated is how many bytes r has, in use or free.
func Allocated(r *Reassembler) int { return r.allocated }
