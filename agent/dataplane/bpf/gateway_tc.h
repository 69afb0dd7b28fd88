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
	void *source;

	if ((void *)(ipv4 + 1) > frame->end)
		return 0;
	known = bpf_map_lookup_elem(&settings, &first);
	if (!known || !known->tunnel_interface)
		return 0;
	if (same_address(link->h_dest, known->secret_plain))
		source = known->plain_source;
	else if (same_address(link->h_dest, known->secret_keep_whole))
		source = known->keep_whole_source;
	else
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
static __always_inline int leave_aggregate(struct cursor *frame, __be16 protocol, __u32 vlans)
{
	struct iphdr *ipv4 = frame->start + ETH_HLEN;
	struct ipv6hdr *ipv6 = frame->start + ETH_HLEN;
	struct udphdr *udp = frame->start + ETH_HLEN + sizeof(*ipv4);
	struct tunnel *tunnel;

	if (protocol == bpf_htons(ETH_P_IP)) {
		if ((void *)(udp + 1) + 1 > frame->end || *(__u8 *)ipv4 != IPV4_PLAIN || ipv4->protocol != IPPROTO_UDP ||
		    *(__u8 *)(udp + 1) != AMT_MULTICAST_DATA)
			return LEAVE;
		tunnel = find_tunnel4(ipv4->daddr, udp->dest, vlans);
	} else {
		udp = frame->start + ETH_HLEN + sizeof(*ipv6);
		if ((void *)(udp + 1) + 1 > frame->end || ipv6->nexthdr != IPPROTO_UDP ||
		    *(__u8 *)(udp + 1) != AMT_MULTICAST_DATA)
			return LEAVE;
		tunnel = find_tunnel6(&ipv6->daddr, udp->dest, vlans);
	}
	return tunnel ? leave(AGGREGATE) : LEAVE;
}

/* Decide about a packet without changing it. */
static __always_inline int judge_for_tc(struct __sk_buff *skb, struct cursor *frame, struct packet *packet)
{
	struct arrival arrival = { .octets = skb->len };
	struct ethhdr *link = frame->start;
	int outcome;

	if ((void *)(link + 1) > frame->end || link->h_proto != (__be16)skb->protocol)
		return LEAVE; /* a tag in the frame itself: VLAN devices made with reorder_hdr off */
	if (skb->vlan_present)
		arrival.vlans = (skb->vlan_tci & VLAN_ID) << 16;
	if (skb->gso_size)
		return leave_aggregate(frame, skb->protocol, arrival.vlans);
	outcome = judge_outer(frame, skb->protocol, &arrival, packet);
	return outcome == FORWARD ? judge_inner(frame, packet, 1 << PLANE_TC) : outcome;
}

static __always_inline void see(struct __sk_buff *skb, struct cursor *frame)
{
	frame->start = (void *)(long)skb->data;
	frame->end = (void *)(long)skb->data_end;
	frame->at = ETH_HLEN;
}

SEC("tc")
int gateway_tc(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct cursor frame;
	__u32 sight = skb->len;

	if (skb->protocol != bpf_htons(ETH_P_IP) && skb->protocol != bpf_htons(ETH_P_IPV6))
		return TC_ACT_UNSPEC;
	if (sight > TC_IN_SIGHT)
		sight = TC_IN_SIGHT;
	see(skb, &frame);
	if (frame.start + sight > frame.end) {
		if (bpf_skb_pull_data(skb, sight))
			return TC_ACT_UNSPEC;
		see(skb, &frame);
	}
	if (skb->pkt_type == PACKET_OTHERHOST) {
		int verdict = enter_tunnel_interface(skb, &frame);

		return verdict ? verdict : TC_ACT_UNSPEC; /* what is on the link for others */
	}
	if (skb->pkt_type != PACKET_HOST)
		return TC_ACT_UNSPEC;
	switch (judge_for_tc(skb, &frame, &packet)) {
	case FORWARD:
		return strip_and_copy(skb, &frame, &packet);
	case REFUSE:
		return TC_ACT_SHOT;
	}
	return TC_ACT_UNSPEC;
}

#endif
