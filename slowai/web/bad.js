// What is wrong with a picture, in words for the person who brought it
export class Bad extends Error {}
