/* The kernel path: programs that encapsulate and decapsulate the plain packets of tunnels
 * whose headers depend on nothing but the packet. A packet that a program does not carry
 * passes on unchanged, to the process that has loaded the programs. That process carries it,
 * or drops and counts it. A program therefore carries a packet only after every check that
 * the process would make, and writes the same bytes.
 *
 *   send     where packets enter a tunnel's interface (a TUN device): adds the headers, and
 *            sends the packet through the device of the outer packets
 *   receive  where packets arrive at a device: removes the headers, and delivers the packet
 *            through the tunnel's interface
 *   note     on routes into a tunnel: prepares super-packets for two layers of headers
 */
#include "bpf.h"

enum { ETHERNET = 14, IPV4 = 20, IPV6 = 40, MOST = 64 }; /* lengths of headers, in bytes */
enum { TCP = 6, UDP = 17, IN_IPV4 = 4, IN_IPV6 = 41, IN_GRE = 47 }; /* protocols */
enum { ETH_IPV4 = 0x0800, ETH_IPV6 = 0x86dd };
enum { DF = 0x4000, FRAGMENT = 0x3fff };
enum { GRE_KEY = 0x2000 };
enum { TCP_SYN = 2 };
enum { MAX_PACKET = 65535 };
enum { LARGE = 1280 + IPV4 }; /* packets up to this size pass every path */

#define NOBODY 0xffffffff /* as a peer: the prefix is behind none */

/* The memory of an entry that is removed from a hash table may have the next entry at once,
 * while a program still reads it. So an entry begins with a number that is new each time, says
 * whose it is, and ends with a word that makes the sum of its words, by exclusive or, 0. */

/* One direction to a peer, for packets of one IP version. */
struct path {
	u64 fresh;
	u8 headers[MOST]; /* outermost first; what differs from packet to packet is 0 */
	u32 size;         /* of the headers in use, in bytes */
	u32 limit;        /* size of the largest packet, in bytes */
	u32 device;       /* index of the device of the outer packets */
	u32 sum;          /* of the 16-bit words of the IPv4 header */
	u8 keep, set;     /* outer TOS = inner & keep | set */
	u8 ttl;           /* of the IPv4 header; 0: that of what is inside */
	u8 hop_limit;     /* the same for the IPv6 header */
	u8 flags;
	u8 pad[3];
	u32 mark; /* of the outer packets, by which they may be routed */
	u32 pad2;
	u32 peer, version; /* those of its key */
	u64 check;
};

/* Flags of a path. */
enum {
	OVER4 = 1,       /* the outermost header is that of IPv4 */
	TWO_LAYERS = 2,  /* after it comes one of IPv6 */
	GRE = 4,         /* after the only IP header comes one of GRE */
	LABEL_HASH = 8,  /* the flow label is a hash of the flow; otherwise headers has it */
	LABEL_INNER = 16, /* the flow label is that of the packet */
	NEEDS_DF = 32,   /* IPv4 packets are carried only with DF */
};

struct path_key {
	u32 peer;
	u32 version;
};

/* What the outermost headers of packets from a peer have. */
struct outer4 {
	u32 from, at;
	u32 key; /* of GRE */
	u8 protocol;
	u8 keyed;
	u16 pad;
} __attribute__((aligned(8)));

struct outer6 {
	u64 from[2], at[2];
	u32 key;
	u8 protocol;
	u8 keyed;
	u16 pad;
} __attribute__((aligned(8)));

/* Where packets from a peer belong. */
struct end {
	u64 fresh;
	u32 peer;
	u32 tunnel;   /* index of its interface */
	u32 layers;   /* 2: IPv4 packets are in IPv6, between these two addresses */
	u32 pad;
	u64 remote[2], local[2];
	u64 identity; /* identify of its key */
	u64 check;
};

struct prefix4 {
	u32 bits; /* 32 more than the prefix has */
	u32 tunnel;
	u32 address;
};

struct prefix6 {
	u32 bits;
	u32 tunnel;
	u64 address[2];
} __attribute__((packed, aligned(4)));

struct count {
	u64 out_packets, out_bytes, in_packets, in_bytes;
	u64 out_large; /* sent, and larger with all headers than LARGE */
	u64 odd_ecn;   /* received with ECN fields that no correct path produces */
};

struct {
	NUMBER(type, HASH);
	NUMBER(map_flags, NO_PREALLOC);
	NUMBER(max_entries, 1 << 18);
	TYPE(key, struct path_key);
	TYPE(value, struct path);
} paths SEC(".maps");

struct {
	NUMBER(type, HASH);
	NUMBER(map_flags, NO_PREALLOC);
	NUMBER(max_entries, 1 << 18);
	TYPE(key, struct outer4);
	TYPE(value, struct end);
} ends4 SEC(".maps");

struct {
	NUMBER(type, HASH);
	NUMBER(map_flags, NO_PREALLOC);
	NUMBER(max_entries, 1 << 18);
	TYPE(key, struct outer6);
	TYPE(value, struct end);
} ends6 SEC(".maps");

/* The peer behind which the longest prefix of an inner address is. */
struct {
	NUMBER(type, LPM_TRIE);
	NUMBER(map_flags, NO_PREALLOC);
	NUMBER(max_entries, 1 << 19);
	TYPE(key, struct prefix4);
	TYPE(value, u32);
} behind4 SEC(".maps");

struct {
	NUMBER(type, LPM_TRIE);
	NUMBER(map_flags, NO_PREALLOC);
	NUMBER(max_entries, 1 << 19);
	TYPE(key, struct prefix6);
	TYPE(value, u32);
} behind6 SEC(".maps");

struct {
	NUMBER(type, PERCPU_HASH);
	NUMBER(map_flags, NO_PREALLOC);
	NUMBER(max_entries, 1 << 18);
	TYPE(key, u32);
	TYPE(value, struct count);
} counts SEC(".maps");

/* Of the process: the key of its hash of flows, and what marks packets of note. */
const volatile u64 flow_key[3] = {1, 1, 1};
const volatile u64 secret = 0;

/* An IP header of either version, as the packet has it. */
union ip {
	u8 b[IPV6];
	u16 h[IPV6 / 2];
	u32 w[IPV6 / 4];
	u64 q[IPV6 / 8];
};

/* What is known about an inner packet. */
struct inner {
	union ip ip;
	u32 ports;   /* source and destination port */
	u32 headers; /* length up to the payload of TCP or UDP, in bytes */
	u8 version, tos, ttl, protocol;
};

inline u16 fold(u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* sum4 returns the sum over an IPv4 header without options; 0xffff if its checksum is right. */
inline u16 sum4(const union ip *ip)
{
	u32 sum = 0;
#pragma unroll
	for (int i = 0; i < IPV4 / 2; i++)
		sum += ip->h[i];
	return fold(sum);
}

inline int is_link_local(const u8 *a) { return a[0] == 0xfe && (a[1] & 0xc0) == 0x80; }

inline u8 class_of(const union ip *ip) { return ip->b[0] << 4 | ip->b[1] >> 4; }

/* copy copies an entry of a hash table, and reports whether it is whole. */
inline int copy(void *to, const void *from, u32 size)
{
	const volatile u64 *source = from; /* each word is read once */
	u64 *w = to, sum = 0;
#pragma unroll
	for (u32 i = 0; i < size / 8; i++) {
		u64 one = source[i];
		sum ^= one;
		w[i] = one;
	}
	return sum == 0;
}

/* identify returns a number for a key. */
inline u64 identify(const void *key, u32 size)
{
	const u64 *w = key;
	u64 n = 0;
#pragma unroll
	for (u32 i = 0; i < size / 8; i++)
		n = (n + w[i]) * 0x9e3779b97f4a7c15;
	return n;
}

/* parse reads the headers of the inner packet at an offset, and reports whether it is plain:
 * TCP without SYN (the daemon may have to lower the MSS of one with it) or UDP, whole, without
 * options and extension headers, and not to a multicast or link-local address. */
inline int parse(struct packet *skb, u32 at, struct inner *in)
{
	u8 first, upper[14] = {};
	u32 len = skb->len - at, l4;
	union ip *ip = &in->ip;
	if (load_bytes(skb, at, &first, 1))
		return 0;
	if (first == 0x45) {
		if (load_bytes(skb, at, ip, IPV4))
			return 0;
		if (be16(ip->h[1]) != len || ip->h[3] & be16(FRAGMENT) || ip->b[16] >= 224)
			return 0;
		in->version = 4;
		in->tos = ip->b[1];
		in->ttl = ip->b[8];
		in->protocol = ip->b[9];
		l4 = IPV4;
	} else if (first >> 4 == 6) {
		if (load_bytes(skb, at, ip, IPV6))
			return 0;
		if (be16(ip->h[2]) + IPV6 != len || ip->b[24] == 0xff || is_link_local(&ip->b[24]))
			return 0;
		in->version = 6;
		in->tos = class_of(ip);
		in->ttl = ip->b[7];
		in->protocol = ip->b[6];
		l4 = IPV6;
	} else
		return 0;
	if (in->ttl == 0)
		return 0;
	if (in->protocol == TCP) {
		if (len < l4 + 20 || load_bytes(skb, at + l4, upper, 14) || upper[13] & TCP_SYN)
			return 0;
		in->headers = l4 + (upper[12] >> 4) * 4;
	} else if (in->protocol == UDP) {
		if (len < l4 + 8 || load_bytes(skb, at + l4, upper, 4))
			return 0;
		in->headers = l4 + 8;
	} else
		return 0;
	in->ports = (u32)upper[0] << 24 | (u32)upper[1] << 16 | (u32)upper[2] << 8 | upper[3];
	return 1;
}

/* from_anywhere reports whether the source address of a packet needs a closer look than the
 * longest prefix: it is not that of a host, or contains another address. */
inline int from_anywhere(const struct inner *in)
{
	const u8 *a = &in->ip.b[12];
	if (in->version == 4)
		return a[0] == 0 || a[0] == 127 || a[0] >= 224;
	a = &in->ip.b[8];
	return in->ip.q[1] == 0 || a[0] == 0xff || is_link_local(a) || (a[0] == 0x20 && a[1] == 0x02);
}

/* behind returns the peer behind which an address of the packet is; 0: it is not known. */
inline u32 *behind(u32 tunnel, const struct inner *in, int source)
{
	if (in->version == 4) {
		struct prefix4 p = {.bits = 64, .tunnel = tunnel, .address = in->ip.w[source ? 3 : 4]};
		return map_lookup(&behind4, &p);
	}
	struct prefix6 p = {.bits = 160, .tunnel = tunnel};
	p.address[0] = in->ip.q[source ? 1 : 3];
	p.address[1] = in->ip.q[source ? 2 : 4];
	return map_lookup(&behind6, &p);
}

/* mix multiplies to 128 bits and combines both halves. */
inline u64 mix(u64 a, u64 b)
{
	u64 al = (u32)a, ah = a >> 32, bl = (u32)b, bh = b >> 32;
	u64 ll = al * bl, lh = al * bh, hl = ah * bl;
	u64 middle = (ll >> 32) + (u32)lh + (u32)hl;
	return (ah * bh + (lh >> 32) + (hl >> 32) + (middle >> 32)) ^ (a * b);
}

/* flow_hash is FlowHash of package framing, so that the packets of a flow have one flow label
 * whichever way they take. */
inline u64 flow_hash(const struct inner *in)
{
	u64 rest = (u64)in->ports << 8 | in->protocol;
	if (in->version == 4) {
		u64 addresses = (u64)be32(in->ip.w[3]) << 32 | be32(in->ip.w[4]);
		return mix(mix(addresses ^ flow_key[0], flow_key[1]) ^ rest, flow_key[2]);
	}
	u32 label = be32(in->ip.w[0]) & 0xfffff;
	u64 h = flow_key[0];
	if (label)
		rest = label;
#pragma unroll
	for (int i = 1; i < 5; i++)
		h = mix(be64(in->ip.q[i]) ^ h, flow_key[1]);
	return mix(h ^ rest, flow_key[2]);
}

/* segments returns how many packets a super-packet of len bytes is. */
inline u32 segments(struct packet *skb, const struct inner *in, u32 len)
{
	u32 size = skb->gso_size;
	if (size == 0 || len <= in->headers)
		return 1;
	return (len - in->headers + size - 1) / size;
}

/* largest returns the size of the largest of the packets that a super-packet is. */
inline u32 largest(struct packet *skb, const struct inner *in)
{
	return skb->gso_size ? in->headers + skb->gso_size : skb->len;
}

/* route finds the path of an inner packet. It returns 0 if the packet is not carried. */
inline int route(struct packet *skb, struct inner *in, struct path *p)
{
	if (!parse(skb, 0, in))
		return 0;
	u32 *id = behind(skb->ifindex, in, 0);
	if (!id)
		return 0;
	struct path_key key = {.peer = *id, .version = in->version};
	struct path *entry = map_lookup(&paths, &key);
	if (!entry || !copy(p, entry, sizeof *p) || p->peer != key.peer || p->version != key.version)
		return 0;
	if (largest(skb, in) > p->limit || skb->len + p->size > MAX_PACKET)
		return 0;
	return !(p->flags & NEEDS_DF && in->version == 4 && !(in->ip.h[3] & be16(DF)));
}

/* write6 writes the fields of an IPv6 header that differ from packet to packet. */
inline void write6(u8 *header, struct path *p, struct inner *in, u8 tos, u32 len)
{
	u32 *w = (u32 *)header;
	u32 label = 0;
	if (p->flags & LABEL_HASH)
		label = flow_hash(in) >> 44;
	else if (p->flags & LABEL_INNER && in->version == 6)
		label = be32(in->ip.w[0]) & 0xfffff;
	w[0] |= be32(6u << 28 | (u32)tos << 20 | label);
	*(u16 *)(header + 4) = be16((u16)(len - IPV6));
	if (p->hop_limit)
		in->ttl = p->hop_limit;
	header[7] = in->ttl;
}

/* write completes the headers of a path for a packet of len bytes. */
inline void write(struct path *p, struct inner *in, u32 len)
{
	u8 *h = p->headers, tos = (in->tos & p->keep) | p->set;
	u32 total = len + p->size;
	if (!(p->flags & OVER4)) {
		write6(h, p, in, tos, total);
		return;
	}
	if (p->flags & TWO_LAYERS)
		write6(h + IPV4, p, in, tos, total - IPV4);
	u8 ttl = p->ttl ? p->ttl : in->ttl;
	h[1] = tos;
	*(u16 *)(h + 2) = be16((u16)total);
	h[8] = ttl;
	u16 sum = ~fold(p->sum + tos + total + ((u32)ttl << 8));
	*(u16 *)(h + 10) = be16(sum);
}

/* transmit encapsulates and sends the packet. Noted says that the kernel knows that there will
 * be two layers. */
inline int transmit(struct packet *skb, int noted)
{
	struct inner in = {};
	struct path p;
	u32 len = skb->len;
	if (!route(skb, &in, &p))
		return PASS;
	u32 size = p.size, n = segments(skb, &in, len), large = largest(skb, &in) + size > LARGE;
	u8 flags = p.flags;
	if (size < IPV4 || size >= MOST)
		return PASS;
	if (skb->gso_size && flags & TWO_LAYERS && !noted)
		return PASS; /* adjust_room can note only one */
	write(&p, &in, len);
	u64 how = FIXED_GSO | NO_CSUM_RESET;
	if (!noted) {
		how |= flags & OVER4 ? ENCAP_IPV4 : ENCAP_IPV6;
		if (flags & GRE)
			how |= ENCAP_GRE;
	}
	if (adjust_room(skb, size, AFTER_MAC_HEADER, how))
		return PASS; /* it has changed nothing */
	u16 ethernet[ETHERNET / 2] = {};
	ethernet[6] = flags & OVER4 ? be16(ETH_IPV4) : be16(ETH_IPV6);
	asm volatile("" : "+r"(size)); /* or the compiler drops what the verifier must see */
	size &= MOST - 1;
	if (size == 0)
		return DROP;
	if (store_bytes(skb, 0, p.headers, size, 0) || change_head(skb, ETHERNET, 0) || store_bytes(skb, 0, ethernet, ETHERNET, 0))
		return DROP;
	struct count *c = map_lookup(&counts, &p.peer);
	if (c) {
		c->out_packets += n;
		c->out_bytes += len + (n - 1) * in.headers;
		if (large)
			c->out_large += n;
	}
	skb->mark = p.mark;
	return redirect_neigh(p.device, 0, 0, 0);
}

/* What note writes where the headers will be: an IPv4 and an IPv6 header, by which push_encap
 * recognizes the layers. Instead of addresses the first one has the secret. */
enum { PLACEHOLDER = IPV4 + IPV6, SECRET_AT = 12 };

SEC("tcx/egress")
int send(struct packet *skb)
{
	u64 s = 0;
	int noted = skb->gso_size && skb->protocol == be16(ETH_IPV4) && load_bytes(skb, SECRET_AT, &s, sizeof s) == 0 && s == secret;
	if (noted && adjust_room(skb, -PLACEHOLDER, AFTER_MAC_HEADER, NO_CSUM_RESET))
		return DROP;
	return transmit(skb, noted);
}

/* note makes the kernel cut a super-packet as one with two layers: each push_encap notes one
 * layer. It refuses IPv4 in IPv6 and accepts IPv6 in IPv6; what it notes is the same. */
SEC("lwt_xmit")
int note(struct packet *skb)
{
	struct inner in = {};
	struct path p;
	union {
		u8 b[64];
		u64 q[8];
	} h = {};
	if (skb->gso_size < 256) /* each push_encap reduces it */
		return ROUTE_PASS;
	if (!route(skb, &in, &p) || !(p.flags & TWO_LAYERS) || in.protocol != TCP)
		return ROUTE_PASS;
	u8 *six = h.b + IPV4;
	h.b[0] = 0x45;
	h.b[9] = IN_IPV6;
	h.b[10] = 1;
	u64 s = secret;
	__builtin_memcpy(h.b + SECRET_AT, &s, sizeof s);
	six[0] = 0x60;
	six[6] = IN_IPV6;
	if (push_encap(skb, PUSH_IP, six, IPV6) || push_encap(skb, PUSH_IP, h.b, IPV4))
		return ROUTE_DROP;
	return ROUTE_PASS;
}

enum { NOT_ECT = 0, ECT1 = 1, ECT0 = 2, CE = 3 };
enum { REFUSE = 0x80, ODD = 0x40 }; /* see combine */

/* combine returns the ECN field after decapsulation, of RFC 6040 figure 4. */
inline u8 combine(u8 inner, u8 outer)
{
	inner &= 3;
	outer &= 3;
	if (outer == NOT_ECT)
		return inner;
	if (outer == CE)
		return inner == NOT_ECT ? REFUSE : CE;
	switch (inner) {
	case ECT0:
		return outer;
	case ECT1:
		return outer == ECT0 ? ECT1 | ODD : ECT1;
	case CE:
		return outer == ECT1 ? CE | ODD : CE;
	}
	return NOT_ECT | ODD;
}

/* An address of this host of either IP version. */
struct address {
	u8 version;
	u32 v4;
	u64 v6[2];
};

/* is_to reports whether a packet is to an address. */
inline int is_to(const struct inner *in, const struct address *a)
{
	if (in->version != a->version)
		return 0;
	if (in->version == 4)
		return in->ip.w[4] == a->v4;
	return in->ip.q[3] == a->v6[0] && in->ip.q[4] == a->v6[1];
}

/* open_outer checks the outermost headers of a packet. It returns in at where they end, in
 * protocol that of what is inside, 4 or 41, in to where the packet belongs, and in endpoint our
 * address. */
inline int open_outer(struct packet *skb, struct end *to, u32 *at, u8 *tos, u8 *protocol, struct address *endpoint)
{
	union ip ip;
	struct outer4 k4 = {};
	struct outer6 k6 = {};
	u32 off = ETHERNET, gre[2] = {}, key = 0;
	int four = skb->protocol == be16(ETH_IPV4);
	if (four) {
		if (load_bytes(skb, off, &ip, IPV4))
			return 0;
		if (ip.b[0] != 0x45 || ip.h[3] & be16(FRAGMENT) || be16(ip.h[1]) != skb->len - off || sum4(&ip) != 0xffff)
			return 0;
		*tos = ip.b[1];
		*protocol = ip.b[9];
		k4.from = ip.w[3];
		k4.at = endpoint->v4 = ip.w[4];
		endpoint->version = 4;
		off += IPV4;
	} else if (skb->protocol == be16(ETH_IPV6)) {
		if (load_bytes(skb, off, &ip, IPV6))
			return 0;
		if (ip.b[0] >> 4 != 6 || be16(ip.h[2]) + IPV6 != skb->len - off)
			return 0;
		*tos = class_of(&ip);
		*protocol = ip.b[6];
		k6.from[0] = ip.q[1];
		k6.from[1] = ip.q[2];
		k6.at[0] = endpoint->v6[0] = ip.q[3];
		k6.at[1] = endpoint->v6[1] = ip.q[4];
		endpoint->version = 6;
		off += IPV6;
	} else
		return 0;
	k4.protocol = k6.protocol = *protocol;
	if (*protocol == IN_GRE) {
		if (load_bytes(skb, off, gre, 4))
			return 0;
		off += 4;
		u32 word = be32(gre[0]);
		if (word >> 16 == GRE_KEY) {
			if (load_bytes(skb, off, &key, 4))
				return 0;
			off += 4;
			k4.keyed = k6.keyed = 1;
			k4.key = k6.key = key;
		} else if (word >> 16 != 0)
			return 0;
		if ((word & 0xffff) == ETH_IPV4)
			*protocol = IN_IPV4;
		else if ((word & 0xffff) == ETH_IPV6)
			*protocol = IN_IPV6;
		else
			return 0;
	} else if (*protocol != IN_IPV4 && *protocol != IN_IPV6)
		return 0;
	*at = off;
	struct end *e = four ? map_lookup(&ends4, &k4) : map_lookup(&ends6, &k6);
	if (!e || !copy(to, e, sizeof *to))
		return 0;
	return to->identity == (four ? identify(&k4, sizeof k4) : identify(&k6, sizeof k6));
}

/* mark writes an ECN field into the inner packet at an offset. */
inline long mark(struct packet *skb, u32 at, struct inner *in, u8 field)
{
	u8 tos = (in->tos & ~3) | field;
	if (in->version == 6) {
		u8 b = (in->ip.b[1] & 0x0f) | tos << 4;
		return store_bytes(skb, at + 1, &b, 1, RECOMPUTE_CSUM);
	}
	u32 before = (u32)in->ip.b[0] << 8 | in->tos, after = (u32)in->ip.b[0] << 8 | tos;
	u16 sum = be16(in->ip.h[5]);
	sum = ~fold((u16)~sum + (u16)~before + after);
	sum = be16(sum);
	return store_bytes(skb, at + 1, &tos, 1, 0) || store_bytes(skb, at + 10, &sum, 2, 0);
}

SEC("tcx/ingress")
int receive(struct packet *skb)
{
	struct inner in = {};
	u32 at = 0;
	u8 tos = 0, protocol = 0, odd = 0;
	if (skb->pkt_type != 0 || skb->vlan_present) /* not to this host, or of a VLAN on the device */
		return PASS;
	struct end e;
	struct address endpoint = {};
	if (!open_outer(skb, &e, &at, &tos, &protocol, &endpoint))
		return PASS;
	if (e.layers == 2 && protocol == IN_IPV6) {
		union ip ip;
		if (load_bytes(skb, at, &ip, IPV6))
			return PASS;
		if (ip.q[3] == e.local[0] && ip.q[4] == e.local[1]) {
			/* in the inner layer, or to our end of it, which is the daemon's */
			if (ip.b[0] >> 4 != 6 || ip.b[6] != IN_IPV4 || be16(ip.h[2]) + IPV6 != skb->len - at)
				return PASS;
			if (ip.q[1] != e.remote[0] || ip.q[2] != e.remote[1])
				return PASS;
			u8 field = combine(class_of(&ip), tos);
			if (field & REFUSE)
				return PASS;
			odd += field >> 6;
			tos = field & 3;
			at += IPV6;
			protocol = IN_IPV4;
		}
	}
	if (!parse(skb, at, &in) || in.version != (protocol == IN_IPV4 ? 4 : 6) || from_anywhere(&in))
		return PASS;
	if (in.protocol == UDP && is_to(&in, &endpoint))
		return PASS; /* it may be a packet of a tunnel again */
	if (in.version == 4 && sum4(&in.ip) != 0xffff)
		return PASS;
	u32 *source = behind(e.tunnel, &in, 1);
	if (!source || *source != e.peer)
		return PASS;
	u8 field = combine(in.tos, tos);
	if (field & REFUSE)
		return PASS;
	odd += field >> 6;
	field &= 3;
	u32 len = skb->len - at, n = segments(skb, &in, len);
	u64 how = FIXED_GSO | (in.version == 4 ? DECAP_IPV4 : DECAP_IPV6);
	if (adjust_room(skb, -(s32)(at - ETHERNET), AFTER_MAC_HEADER, how))
		return PASS;
	if (field != (in.tos & 3) && mark(skb, ETHERNET, &in, field))
		return DROP;
	struct count *c = map_lookup(&counts, &e.peer);
	if (c) {
		c->in_packets += n;
		c->in_bytes += len + (n - 1) * in.headers;
		c->odd_ecn += odd;
	}
	return redirect(e.tunnel, TO_INGRESS);
}

char terms[] SEC("license") = "MIT";
