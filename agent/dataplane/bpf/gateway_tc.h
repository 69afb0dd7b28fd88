/* The program behind the drivers of the uplinks: for interfaces a driver cannot send to by itself (VLAN, bridge, bond),
 * and for what XDP stripped and the kernel's multicast routing is to forward.
 *
 * It belongs on the interface that has the tunnel's address: on a VLAN device tags are gone, a bridge or bond has taken
 * frames from its members. On a member or a VLAN's parent it does no harm. What it leaves alone is handed to the filters
 * behind it (TC_ACT_UNSPEC), so that those of others still see it. */
#ifndef ISTHMUS_GATEWAY_TC_H
#define ISTHMUS_GATEWAY_TC_H

#include <linux/if_packet.h>
#include <linux/pkt_cls.h>

#include "judge.h"
#include "tc_copies.h"
#include "tc_strip.h"

/* Headers of the longest kind: these octets of a packet are brought into sight. */
#define TC_IN_SIGHT (ETH_HLEN + OUTER6_SIZE + sizeof(struct ipv6hdr))

static __always_inline int same_address(const __u8 *one, const __u8 *other)
{
	const __u16 *left = (const void *)one, *right = (const void *)other;

	return left[0] == right[0] && left[1] == right[1] && left[2] == right[2];
}

/* Hand a packet that XDP stripped to the tunnel interface as if it had come in there. Trains that GRO made of such packets
 * stay whole. A checksum left to do, which pointed into the outer packet, is forgotten by the kernel on this way.
 * Returns a verdict; 0 when the packet is none of these. */
static __always_inline int enter_tunnel_interface(struct __sk_buff *skb, struct cursor *frame)
{
	struct ethhdr *link = frame->start, made;
	struct iphdr *ipv4 = (void *)(link + 1);
	struct ipv6hdr *ipv6 = (void *)(link + 1);
	struct settings *known;
	__u32 first = 0;
	void *source, *keep_whole;

	if ((void *)(ipv4 + 1) > frame->end)
		return 0;
	known = bpf_map_lookup_elem(&settings, &first);
	if (!known || !known->tunnel_interface)
		return 0;
	source = known->plain_source;
	keep_whole = known->keep_whole_source;
	KEEP_APART(source);
	KEEP_APART(keep_whole);
	if (same_address(link->h_dest, known->secret_keep_whole))
		source = keep_whole;
	else if (!same_address(link->h_dest, known->secret_plain))
		return 0;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		address_frame4(&made, ipv4);
	else if ((void *)(ipv6 + 1) > frame->end)
		return 0;
	else
		address_frame6(&made, ipv6);
	__builtin_memcpy(made.h_source, source, ETH_ALEN);
	if (bpf_skb_store_bytes(skb, 0, &made, 2 * ETH_ALEN, 0)) {
		refuse(OUTPUT_ERROR);
		return TC_ACT_SHOT;
	}
	return bpf_redirect(known->tunnel_interface, BPF_F_INGRESS);
}

/* Several datagrams in one: the socket's, which takes them apart. Counted if a tunnel's. */
static __always_inline int leave_aggregate(struct cursor *frame, __be16 protocol, const struct arrival *arrival)
{
	struct iphdr *ipv4 = frame->start + ETH_HLEN;
	struct ipv6hdr *ipv6 = frame->start + ETH_HLEN;
	struct udphdr *udp = frame->start + ETH_HLEN + sizeof(*ipv4);
	struct tunnel *tunnel;

	if (protocol == bpf_htons(ETH_P_IP)) {
		if ((void *)(udp + 1) + 1 > frame->end || *(__u8 *)ipv4 != IPV4_PLAIN || ipv4->protocol != IPPROTO_UDP ||
		    *(__u8 *)(udp + 1) != AMT_MULTICAST_DATA)
			return LEAVE;
		tunnel = find_tunnel4(frame, arrival, ipv4->daddr, udp->dest);
	} else {
		udp = frame->start + ETH_HLEN + sizeof(*ipv6);
		if ((void *)(udp + 1) + 1 > frame->end || ipv6->nexthdr != IPPROTO_UDP ||
		    *(__u8 *)(udp + 1) != AMT_MULTICAST_DATA)
			return LEAVE;
		tunnel = find_tunnel6(frame, arrival, &ipv6->daddr, udp->dest);
	}
	return tunnel ? leave(AGGREGATE) : LEAVE;
}

static __always_inline void see(struct __sk_buff *skb, struct cursor *frame)
{
	frame->start = (void *)(long)skb->data;
	frame->end = (void *)(long)skb->data_end;
	frame->at = ETH_HLEN;
}

static __always_inline int receive_inner_buffer(struct __sk_buff *skb, struct cursor *frame, struct packet *packet,
						int version)
{
	switch (judge_inner(frame, packet, version, 1 << PLANE_TC)) {
	case FORWARD:
		return strip_and_copy(skb, frame, packet, version);
	case REFUSE:
		return TC_ACT_SHOT;
	}
	return TC_ACT_UNSPEC;
}

/* Handle a packet whose outer one is of type `ethertype`, a constant. Returns a verdict. */
static __always_inline int receive_buffer(struct __sk_buff *skb, __u16 ethertype)
{
	struct arrival arrival = { .octets = skb->len, .skb = skb };
	struct packet packet = {};
	struct cursor frame;
	struct ethhdr *link;
	int outcome;

	see(skb, &frame);
	link = frame.start;
	if ((void *)(link + 1) > frame.end || link->h_proto != bpf_htons(ethertype))
		return TC_ACT_UNSPEC; /* a tag in the frame itself: VLAN devices made with reorder_hdr off */
	if (skb->vlan_present)
		arrival.vlans = (skb->vlan_tci & VLAN_ID) << 16;
	if (skb->gso_size) {
		leave_aggregate(&frame, bpf_htons(ethertype), &arrival);
		return TC_ACT_UNSPEC;
	}
	outcome = judge_outer(&frame, bpf_htons(ethertype), &arrival, &packet);
	if (outcome == FORWARD) {
		switch (inner_version(&frame, &packet)) {
		case 4:
			return receive_inner_buffer(skb, &frame, &packet, 4);
		case 6:
			return receive_inner_buffer(skb, &frame, &packet, 6);
		}
		outcome = refuse(BAD_INNER_HEADER);
	}
	return outcome == REFUSE ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

static __noinline int receive_buffer4(struct __sk_buff *skb)
{
	return receive_buffer(skb, ETH_P_IP);
}

static __noinline int receive_buffer6(struct __sk_buff *skb)
{
	return receive_buffer(skb, ETH_P_IPV6);
}

/* Bring the headers of a packet into sight. Returns whether they are. */
static __always_inline int bring_into_sight(struct __sk_buff *skb, struct cursor *frame)
{
	see(skb, frame);
	if (frame->start + TC_IN_SIGHT <= frame->end)
		return 1;
	if (bpf_skb_pull_data(skb, skb->len < TC_IN_SIGHT ? skb->len : TC_IN_SIGHT))
		return 0;
	see(skb, frame);
	return 1;
}

SEC("tc")
int gateway_tc(struct __sk_buff *skb)
{
	struct cursor frame;
	int verdict;

	if (skb->protocol != bpf_htons(ETH_P_IP) && skb->protocol != bpf_htons(ETH_P_IPV6))
		return TC_ACT_UNSPEC;
	if (!bring_into_sight(skb, &frame))
		return TC_ACT_UNSPEC;
	if (skb->pkt_type == PACKET_OTHERHOST) {
		verdict = enter_tunnel_interface(skb, &frame);
		return verdict ? verdict : TC_ACT_UNSPEC; /* what is on the link for others */
	}
	if (skb->pkt_type != PACKET_HOST)
		return TC_ACT_UNSPEC;
	return skb->protocol == bpf_htons(ETH_P_IP) ? receive_buffer4(skb) : receive_buffer6(skb);
}

#endif
