/* Whether a packet out of a tunnel may be forwarded. The order of the tests, and so the reason a packet is refused for,
 * is that of agent/dataplane/userspace_inner.py. What is not wholly understood is left to the socket.
 *
 * The outer UDP checksum is not verified: with the offloads of veth and virtio it looks wrong though it is right. */
#ifndef ISTHMUS_JUDGE_H
#define ISTHMUS_JUDGE_H

#include "outer.h"

#define NOT_ECN_CAPABLE 0
#define ECN_CAPABLE_1 1
#define CONGESTED 3

static __always_inline int is_source4(const __be32 *address)
{
	const __be16 *words = words_of(address);
	__u32 high = bpf_ntohs(words[0]), first = high >> 8;

	return (high || words[1]) && first != 127 && first < 224 && high != 0xa9fe; /* 169.254/16: RFC 3927 §7 */
}

static __always_inline int is_group4(const __be32 *address)
{
	return *(const __u8 *)address >> 4 == 0xe;
}

/* RFC 5771 §4, and what routers announce of their own domain (Auto-RP). */
static __always_inline int is_local_group4(const __be32 *address)
{
	const __be16 *words = words_of(address);
	__u32 low = bpf_ntohs(words[1]);

	return words[0] == bpf_htons(0xe000) && (low < 0x100 || low == 0x127 || low == 0x128);
}

static __always_inline int is_source6(const struct in6_addr *address)
{
	const __be16 *words = words_of(address);

	if (!words[0] && !(words[1] | words[2] | words[3] | words[4] | words[5] | words[6]) && bpf_ntohs(words[7]) < 2)
		return 0; /* :: and ::1 */
	if (address->in6_u.u6_addr8[0] == 0xff)
		return 0;
	return (words[0] & bpf_htons(0xffc0)) != bpf_htons(0xfe80); /* RFC 4291 §2.5.6 */
}

/* RFC 6040 §4.2, figure 4. Returns the inner field on leaving the tunnel, -1 when the packet must be dropped. */
static __always_inline int decapsulated_ecn(__u32 outer, __u32 inner)
{
	if (outer == CONGESTED)
		return inner == NOT_ECN_CAPABLE ? -1 : CONGESTED;
	if (outer == ECN_CAPABLE_1 && inner != NOT_ECN_CAPABLE && inner != CONGESTED)
		return ECN_CAPABLE_1;
	return inner;
}

/* Decide about a sound inner packet.
 * channel: the entry of its source and group, or NULL.
 * plane: whose program asks.
 * Returns FORWARD with packet->channel and packet->ecn set, NEW_CHANNEL when source and group are not those of a channel
 * of this tunnel, or another outcome. */
#define NEW_CHANNEL 0x100

static __always_inline int judge_channel(struct packet *packet, struct channel *channel, __u32 planes, __u32 hops,
					 __u32 ecn)
{
	int settled;

	if (channel) {
		if (channel->plane == PLANE_USERSPACE)
			return leave(USERSPACE_CHANNEL);
		if (!(planes >> (channel->plane & 31) & 1))
			return LEAVE;
		if (channel->refuse)
			return refuse(channel->refuse - 1);
	}
	if (hops <= 1)
		return refuse(TTL_EXPIRED);
	settled = decapsulated_ecn(packet->outer_ecn, ecn);
	if (settled < 0)
		return refuse(CONGESTION_LOST);
	if (!channel || channel->tunnel != packet->tunnel->slot)
		return NEW_CHANNEL;
	if (packet->length > channel->limit)
		return leave(TOO_BIG);
	packet->channel = channel;
	packet->ecn = settled;
	return FORWARD;
}

/* A packet of a source nobody asked for by name: the socket's when its group has any-source interest. */
static __always_inline int judge_group(const void *group_entry)
{
	return group_entry ? leave(NEW_SOURCE) : refuse(NOT_SUBSCRIBED);
}

/* RFC 791 §3.1, RFC 1812 §5.2.2. */
static __always_inline int judge_inner4(struct cursor *cursor, struct packet *packet, __u32 planes)
{
	struct iphdr *ip = cursor->start + packet->at;
	__u32 length;
	int outcome;

	if ((void *)(ip + 1) > cursor->end)
		return LEAVE;
	if (ip->ihl != 5)
		return ip->ihl < 5 ? refuse(BAD_INNER_HEADER) : leave(INNER_OPTIONS);
	length = bpf_ntohs(ip->tot_len);
	if (length != packet->length)
		return length < packet->length ? leave(AGGREGATE) : refuse(BAD_INNER_HEADER);
	if (inner_header_sum(ip) != 0xffff || !is_group4(&ip->daddr) || !is_source4(&ip->saddr))
		return refuse(BAD_INNER_HEADER);
	if (is_local_group4(&ip->daddr))
		return refuse(LINK_LOCAL_GROUP);
	outcome = judge_channel(packet, bpf_map_lookup_elem(&channels4, &ip->saddr), planes, ip->ttl, ip->tos & ECN);
	if (outcome == FORWARD && ip->protocol == IPPROTO_IGMP)
		return leave(INNER_OPTIONS); /* the kernel's multicast routing keeps it for itself */
	return outcome == NEW_CHANNEL ? judge_group(bpf_map_lookup_elem(&groups4, &ip->daddr)) : outcome;
}

/* RFC 8200 §3. Of the extension headers only hop-by-hop options concern a router. */
static __always_inline int judge_inner6(struct cursor *cursor, struct packet *packet, __u32 planes)
{
	struct ipv6hdr *ip = cursor->start + packet->at;
	__u32 length;
	int outcome;

	if ((void *)(ip + 1) > cursor->end)
		return LEAVE;
	length = sizeof(*ip) + bpf_ntohs(ip->payload_len);
	if (length != packet->length)
		return length < packet->length ? leave(AGGREGATE) : refuse(BAD_INNER_HEADER);
	if (ip->nexthdr == IPPROTO_HOPOPTS)
		return leave(INNER_OPTIONS);
	if (ip->daddr.in6_u.u6_addr8[0] != 0xff || !is_source6(&ip->saddr))
		return refuse(BAD_INNER_HEADER);
	if ((ip->daddr.in6_u.u6_addr8[1] & 0xf) <= 2)
		return refuse(LINK_LOCAL_GROUP); /* RFC 4291 §2.7 */
	outcome = judge_channel(packet, bpf_map_lookup_elem(&channels6, &ip->saddr), planes, ip->hop_limit,
				traffic_class(ip) & ECN);
	return outcome == NEW_CHANNEL ? judge_group(bpf_map_lookup_elem(&groups6, &ip->daddr)) : outcome;
}

/* Judge the outer packet at the cursor; what link header it has is known.
 * Returns FORWARD for a data message of a tunnel with `packet` filled in up to `outer_ecn`; nothing is counted then. */
static __always_inline int judge_outer(struct cursor *cursor, __be16 ethertype, const struct arrival *arrival,
				       struct packet *packet)
{
	if (ethertype == bpf_htons(ETH_P_IP))
		return judge_outer4(cursor, arrival, packet);
	if (ethertype == bpf_htons(ETH_P_IPV6))
		return judge_outer6(cursor, arrival, packet);
	return LEAVE;
}

/* Judge the packet in a data message.
 * version: of the inner packet, a constant.
 * planes: a bit for each plane the asking program forwards; packets of others are left to their programs.
 * Returns FORWARD with all of `packet` filled in, or what else becomes of the frame; it is counted then. */
static __always_inline int judge_inner(struct cursor *cursor, struct packet *packet, int version, __u32 planes)
{
	return version == 4 ? judge_inner4(cursor, packet, planes) : judge_inner6(cursor, packet, planes);
}

/* Version of the inner packet, 0 when there is none in sight. */
static __always_inline int inner_version(struct cursor *cursor, const struct packet *packet)
{
	__u8 *first = cursor->start + packet->at;

	return (void *)(first + 1) > cursor->end ? 0 : *first >> 4;
}

#endif
