/* The tunnel a frame belongs to. */
#ifndef ISTHMUS_OUTER_H
#define ISTHMUS_OUTER_H

#include "count.h"
#include "parse.h"

#define ECN 3

/* A data message of one of our tunnels, and what was decided about it. */
struct packet {
	struct tunnel *tunnel;
	struct channel *channel; /* set when it is to be forwarded */
	__u32 at;                /* a constant: octets from the start of the frame to the inner packet */
	__u32 length;            /* octets of the inner packet */
	__u32 outer_ecn;
	__u32 ecn;               /* field the inner packet leaves with */
};

/* How a frame got here.
 * vlans: identifiers as in struct tunnel, wherever the tags are.
 * octets: of the frame, which may be more than the program has in sight.
 * xdp, skb: the context of the program, one of them. */
struct arrival {
	__u32 vlans;
	__u32 octets;
	struct xdp_md *xdp;
	struct __sk_buff *skb;
};

/* Copy octets of a frame from where no constant says. Returns 0, or an error when the frame has none there. */
static __always_inline long load_octets(const struct arrival *arrival, __u32 at, void *to, __u32 octets)
{
	if (arrival->skb)
		return bpf_skb_load_bytes(arrival->skb, at, to, octets);
	return bpf_xdp_load_bytes(arrival->xdp, at, to, octets);
}

/* Whether a frame came as a tunnel's do. Of a socket buffer the kernel has compared the station. */
static __always_inline int is_way_of(const struct tunnel *tunnel, const struct cursor *cursor,
				     const struct arrival *arrival)
{
	const __u16 *station = (const void *)tunnel->station, *destination = cursor->start;
	__u32 index;

	if (tunnel->vlans != arrival->vlans)
		return 0;
	if (arrival->skb)
		return 1;
	if (!(station[0] | station[1] | station[2])) {
		index = arrival->xdp->ingress_ifindex;
		station = bpf_map_lookup_elem(&stations, &index);
		if (!station)
			return 1;
	}
	return !((station[0] ^ destination[0]) | (station[1] ^ destination[1]) | (station[2] ^ destination[2]));
}

static __always_inline struct tunnel *find_tunnel4(const struct cursor *cursor, const struct arrival *arrival,
						   __be32 local, __be16 port)
{
	struct tunnel4_key key = { .local = local, .port = port };
	struct tunnel *tunnel = bpf_map_lookup_elem(&tunnels4, &key);

	return tunnel && is_way_of(tunnel, cursor, arrival) ? tunnel : NULL;
}

static __always_inline struct tunnel *find_tunnel6(const struct cursor *cursor, const struct arrival *arrival,
						   const struct in6_addr *local, __be16 port)
{
	struct tunnel6_key key = { .port = port };
	struct tunnel *tunnel;

	__builtin_memcpy(key.local, local, sizeof(key.local));
	tunnel = bpf_map_lookup_elem(&tunnels6, &key);
	return tunnel && is_way_of(tunnel, cursor, arrival) ? tunnel : NULL;
}

/* What the socket would find a message by. */
struct message {
	struct udphdr udp;
	__u8 type;
};

/* A frame that may be of a tunnel but has options or is a fragment: it is the socket's, and counted if a tunnel's. */
static __always_inline int leave_odd4(struct cursor *cursor, const struct arrival *arrival)
{
	struct iphdr *ip = cursor->start + cursor->at;
	struct message message;

	if (ip->version != 4 || ip->ihl < 5 || ip->frag_off & bpf_htons(IPV4_OFFSET))
		return LEAVE; /* the ports of a later fragment are in the first */
	if (load_octets(arrival, cursor->at + ip->ihl * 4, &message, sizeof(message.udp) + 1))
		return LEAVE;
	if (message.type != AMT_MULTICAST_DATA || !find_tunnel4(cursor, arrival, ip->daddr, message.udp.dest))
		return LEAVE;
	return leave(ip->frag_off & bpf_htons(IPV4_FRAGMENT) ? OUTER_FRAGMENT : OUTER_OPTIONS);
}

/* The same behind one extension header of IPv6; behind several it goes uncounted. */
static __always_inline int leave_odd6(struct cursor *cursor, const struct arrival *arrival)
{
	struct ipv6hdr *ip = cursor->start + cursor->at;
	__u8 *extension = (void *)(ip + 1);
	struct message message;
	__u32 size = 8;

	if (extension[0] != IPPROTO_UDP)
		return LEAVE;
	if (ip->nexthdr == IPPROTO_FRAGMENT) {
		if (extension[2] || extension[3] & 0xf8)
			return LEAVE;
	} else if (ip->nexthdr == IPPROTO_HOPOPTS || ip->nexthdr == IPPROTO_ROUTING || ip->nexthdr == IPPROTO_DSTOPTS) {
		size = 8 + extension[1] * 8;
	} else {
		return LEAVE;
	}
	if (load_octets(arrival, cursor->at + sizeof(*ip) + size, &message, sizeof(message.udp) + 1))
		return LEAVE;
	if (message.type != AMT_MULTICAST_DATA || !find_tunnel6(cursor, arrival, &ip->daddr, message.udp.dest))
		return LEAVE;
	return leave(ip->nexthdr == IPPROTO_FRAGMENT ? OUTER_FRAGMENT : OUTER_OPTIONS);
}

static __always_inline int is_relay4(const struct tunnel *tunnel, __be32 address, __be16 port)
{
	return *(const __be32 *)tunnel->relay == address && (!tunnel->strict_port || tunnel->relay_port == port);
}

static __always_inline int is_relay6(const struct tunnel *tunnel, const struct in6_addr *address, __be16 port)
{
	const __u32 *relay = (const void *)tunnel->relay, *sender = address->in6_u.u6_addr32;

	if ((relay[0] ^ sender[0]) | (relay[1] ^ sender[1]) | (relay[2] ^ sender[2]) | (relay[3] ^ sender[3]))
		return 0;
	return !tunnel->strict_port || tunnel->relay_port == port;
}

/* Judge the outer packet at the cursor.
 * Returns FORWARD for a data message of a tunnel with `packet` filled in up to `outer_ecn`, the cursor unmoved. */
static __always_inline int judge_outer4(struct cursor *cursor, const struct arrival *arrival, struct packet *packet)
{
	struct iphdr *ip = cursor->start + cursor->at;
	struct udphdr *udp = (void *)(ip + 1);
	struct amt_data *amt = (void *)(udp + 1);
	__u32 length;

	/* The shortest inner header in one test: a message that has less is the socket's to refuse. */
	if ((void *)(amt + 1) + sizeof(struct iphdr) > cursor->end || ip->protocol != IPPROTO_UDP)
		return LEAVE;
	if (*(__u8 *)ip != IPV4_PLAIN || ip->frag_off & bpf_htons(IPV4_FRAGMENT))
		return leave_odd4(cursor, arrival);
	if (amt->type != AMT_MULTICAST_DATA)
		return LEAVE;
	packet->tunnel = find_tunnel4(cursor, arrival, ip->daddr, udp->dest);
	if (!packet->tunnel)
		return LEAVE;
	/* The kernel drops or cuts what does not agree with itself. */
	length = bpf_ntohs(ip->tot_len);
	if (cursor->at + length > arrival->octets || bpf_ntohs(udp->len) != length - sizeof(struct iphdr))
		return LEAVE;
	if (length < OUTER4_SIZE + sizeof(struct iphdr) || header_sum(ip) != 0xffff)
		return LEAVE;
	if (!is_relay4(packet->tunnel, ip->saddr, udp->source))
		return refuse(WRONG_RELAY);
	packet->at = cursor->at + OUTER4_SIZE;
	packet->length = length - OUTER4_SIZE;
	packet->outer_ecn = ip->tos & ECN;
	return FORWARD;
}

static __always_inline int judge_outer6(struct cursor *cursor, const struct arrival *arrival, struct packet *packet)
{
	struct ipv6hdr *ip = cursor->start + cursor->at;
	struct udphdr *udp = (void *)(ip + 1);
	struct amt_data *amt = (void *)(udp + 1);
	__u32 length;

	if ((void *)(amt + 1) + sizeof(struct iphdr) > cursor->end || ip->version != 6)
		return LEAVE;
	if (ip->nexthdr != IPPROTO_UDP)
		return leave_odd6(cursor, arrival);
	if (amt->type != AMT_MULTICAST_DATA)
		return LEAVE;
	packet->tunnel = find_tunnel6(cursor, arrival, &ip->daddr, udp->dest);
	if (!packet->tunnel)
		return LEAVE;
	length = sizeof(struct ipv6hdr) + bpf_ntohs(ip->payload_len);
	if (cursor->at + length > arrival->octets || udp->len != ip->payload_len)
		return LEAVE;
	if (length < OUTER6_SIZE + sizeof(struct iphdr))
		return LEAVE;
	if (!is_relay6(packet->tunnel, &ip->saddr, udp->source))
		return refuse(WRONG_RELAY);
	packet->at = cursor->at + OUTER6_SIZE;
	packet->length = length - OUTER6_SIZE;
	packet->outer_ecn = traffic_class(ip) & ECN;
	return FORWARD;
}

#endif
