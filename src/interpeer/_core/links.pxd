"""Intrusive, circular, doubly linked lists: an object is in a list by a Link inside it, and a list is a Link."""

cdef struct Link:
    Link *next                      # itself when it is in no list; a list's head points at itself when empty
    Link *prev
    void *owner                     # the object that it is in; NULL for a list's head

cdef inline void link_init(Link *l, void *owner) noexcept nogil:
    l.next = l
    l.prev = l
    l.owner = owner

cdef inline bint is_linked(const Link *l) noexcept nogil:
    return l.next != l

cdef inline void unlink(Link *l) noexcept nogil:
    l.prev.next = l.next
    l.next.prev = l.prev
    l.next = l
    l.prev = l

cdef inline void link_last(Link *list, Link *l) noexcept nogil:
    """Put an object that is in no list at the end of one; one that is in a list already stays where it is."""
    if l.next != l:
        return
    l.prev = list.prev
    l.next = list
    list.prev.next = l
    list.prev = l

cdef inline Link *first_link(const Link *list) noexcept nogil:
    """Return the first link of a list, or NULL."""
    return list.next if list.next != list else NULL
