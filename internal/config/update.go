package config

// AddressUpdate says where a tunnel's outer address is reported when it changes: to a broker
// that serves the requests of dynamic DNS. The zero value means nowhere. It can be compared
// with ==.
type AddressUpdate struct {
	URL  string // https
	User string
	Key  Secret
	Host string // what the address belongs to: a name, or the number of a tunnel
}
