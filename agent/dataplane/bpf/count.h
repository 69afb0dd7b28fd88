/* Counters, and the event of a channel's first packet. Each processor counts for itself, programs do not interrupt each
 * other on one, so plain additions are exact. */
#ifndef ISTHMUS_COUNT_H
#define ISTHMUS_COUNT_H

#include "maps.h"

/* What becomes of a frame. */
enum outcome {
	LEAVE,   /* hand it on as it is: to the next program, to the socket */
	REFUSE,  /* drop it; it is counted */
	FORWARD,
};

static __noinline int refuse(__u32 reason)
{
	__u64 *count = bpf_map_lookup_elem(&refused, &reason);

	if (count)
		*count += 1;
	return REFUSE;
}

static __noinline int leave(__u32 reason)
{
	__u64 *count = bpf_map_lookup_elem(&exceptions, &reason);

	if (count)
		*count += 1;
	return LEAVE;
}

static __always_inline void add_traffic(struct traffic *traffic, __u32 octets)
{
	if (!traffic)
		return;
	traffic->packets += 1;
	traffic->octets += octets;
}

/* Count a forwarded packet. The keys stay where they are: each first use of a place on the stack costs programs without
 * CAP_PERFMON a barrier. */
static __always_inline void count_forwarded(const struct channel *channel, __u32 octets)
{
	add_traffic(bpf_map_lookup_elem(&channel_counters, &channel->slot), octets);
	add_traffic(bpf_map_lookup_elem(&tunnel_counters, &channel->tunnel), octets);
}

/* Tell the agent of a channel's packet. Two processors that see the flag at once both tell it, and the agent may set an
 * entry anew meanwhile: an event says that there was a packet, not that it was the only first one. Without room the next
 * packet tries again. */
static __noinline int announce(struct channel *channel)
{
	struct event *event;

	if (!channel)
		return 0;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event)
		return 0;
	channel->announce = 0;
	event->kind = EVENT_FIRST_PACKET;
	event->slot = channel->slot;
	event->tunnel = channel->tunnel;
	event->reserved = 0;
	bpf_ringbuf_submit(event, 0);
	return 0;
}

#endif
