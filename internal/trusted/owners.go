package trusted

import (
	"os/user"
	"strconv"
)

// OwnersNamed returns the user and the group with a name, such as those that packages create
// for the daemon. What does not exist is left out.
func OwnersNamed(name string) (o Owners) {
	if u, err := user.Lookup(name); err == nil {
		if uid, err := strconv.Atoi(u.Uid); err == nil {
			o.Users = append(o.Users, uid)
		}
	}
	if g, err := user.LookupGroup(name); err == nil {
		if gid, err := strconv.Atoi(g.Gid); err == nil {
			o.Groups = append(o.Groups, gid)
		}
	}
	return o
}
