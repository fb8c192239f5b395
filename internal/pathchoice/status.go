package pathchoice

import "sixfour/internal/api"

// Status returns the status of each path, made of its own status as a peer's only path and of
// whether packets use it.
func (c *Chooser) Status(each []api.PeerStatus) []api.PathStatus {
	uses := c.Uses()
	list := make([]api.PathStatus, len(each))
	for i, s := range each {
		list[i] = api.PathStatus{State: s.State, In: s.In, Out: s.Out, Liveness: s.Liveness, LastError: s.LastError, LastDown: s.LastDown}
		if uses != nil {
			u := uses[i]
			list[i].Used, list[i].Share, list[i].Why, list[i].WhySince = u.Share > 0, u.Share, u.Why, u.Since
		}
	}
	return list
}
