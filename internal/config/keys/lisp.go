package keys

const (
	TableLISP     = "[lisp]"
	TableLISPSite = "[[lisp.site]]"
)

// lispReference has the keys of [lisp].
var lispReference = []Key{
	{Table: TableLISP, Name: "listen", Values: "an address, or one of each IP version", Needed: "always", Meaning: "address of this host at which the [map server and map resolver](lisp-server.md) receives; the port is 4342"},
	{Table: TableLISP, Name: "store", Values: "an absolute path", Default: `"/var/lib/sixfour/lisp.db"`, Meaning: "file, which the daemon makes, with the last registration of each router: its nonce must not go back"},
	{Table: TableLISPSite, Name: "name", Values: "at most 63 bytes without white space and `/`", Needed: "always", Meaning: "name of the site in status and log; registrations are kept under it"},
	{Table: TableLISPSite, Name: "key_file", Values: "an absolute path", Needed: "always", Meaning: "file with the key that the site's routers have, too; mode 0600"},
	{Table: TableLISPSite, Name: "eid", Values: "IPv6 and IPv4 prefixes", Needed: "always", Meaning: "prefixes of endpoint identifiers that the site's routers may register, and all longer ones in them"},
	{Table: TableLISPSite, Name: "instance", Values: "0 to 16777215", Default: "0", Meaning: "instance identifier of these prefixes"},
	{Table: TableLISPSite, Name: "nonces", Values: "`growing`, `any`", Default: `"growing"`, Meaning: "`any`: registrations are accepted whose nonces do not grow, as old routers (RFC 6833) send them; then those who have seen a registration can send it again"},
}
